"""The uncertainty of a result: a volume of standard errors, and a test of such volumes against known errors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from nibabel.affines import voxel_sizes

from ..data.loaders.slabs import AIR
from ..degradations import Degradation
from ..inferers import AxesInferer
from ..io.files import write_atomically
from ..io.images import open_image
from ..io.naming import make_case_stem
from ..transforms import RestoreVolumed, SaveVolumed

_VOXELS = 200_000  # drawn from each case; more add nothing
_BINS = 20


def compute_standard_error(deviation: Any, scale: Sequence[float]) -> Any:
    """The root mean square error that a spread predicts.

    Args:
        deviation: of the results that were averaged, a tensor or an array in units of the normalised intensity.
        scale: a and b of :math:`\\sqrt{a^2 s^2 + b^2}`, which :class:`UncertaintyReport` fits.
    """
    a, b = scale
    return ((a * deviation) ** 2 + b**2) ** 0.5


class UncertaintyMap:
    """Writes the standard error of every voxel, ``<name>_sd.nii.gz``, in the units of the result.

    It attaches to a :class:`~common.engines.CaseEvaluator`, and does nothing for an inferer without a spread. If the
    inferer knows the degradation, the spread is only that of the part of k-space that the scan does not measure.
    ``MeasuredKSpace`` in ``<name>_sd.json`` is the share that it has measured along each axis, around the centre.

    Args:
        inferer: the results are its means.
        scale: a and b of :func:`compute_standard_error`, from validation with all axes and mirror images.
        degradation: from the result to the scan.
        output_dir: folder of the results.
        bids: whether results are named as BIDS derivatives.

    Raises:
        ValueError: when there is a spread, but of other axes and mirror images or without a scale; or the scale is not
            two numbers of at least 0.
    """

    def __init__(
        self,
        inferer: AxesInferer,
        scale: Sequence[float] | None,
        degradation: Degradation,
        output_dir: str | os.PathLike,
        bids: bool | str = False,
    ) -> None:
        if inferer.spread and not inferer.complete:
            raise ValueError(
                "uncertainty is true, but the error was measured with other axes and mirror images; leave out "
                "--axes and --mirrored."
            )
        if inferer.spread and scale is None:
            raise ValueError(
                "uncertainty is true, but the weights have no scale that turns this spread into an error; measure it "
                "on cases with known HR (evaluate_uncertainty.json) and give --uncertainty_scale '[a,b]'."
            )
        valid = isinstance(scale, Sequence) and len(scale) == 2 and all(0 <= number < math.inf for number in scale)
        if scale is not None and not valid:
            raise ValueError(f"uncertainty_scale is {scale!r}, expected two numbers [a, b], 0 or more.")
        self.inferer = inferer
        self.scale: Any = scale
        self.restore = RestoreVolumed("sd", "image", degradation, deviations=True)
        self.save = SaveVolumed("sd", output_dir, "sd", bids, "super-resolved, standard error", window=False)

    def attach(self, engine: Engine) -> None:
        """Write when a result has been written."""
        if self.inferer.spread:
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._write)

    def _write(self, engine: Any) -> None:
        error = compute_standard_error(self.inferer.deviation, self.scale)[0]
        name = engine.case.name
        entry: dict[Hashable, Any] = {"sd": error, "image": engine.state.batch[0]["image"], "name": name}
        path = Path(self.save(self.restore(entry))["saved_to"])
        scan = entry["image"].meta["filename_or_obj"]
        fine, coarse = (voxel_sizes(open_image(file).affine) for file in (path, scan))
        description = {
            "Description": "Standard error of each voxel of the super-resolved volume, in its units: the spread of "
            "what the network adds beyond the scan's k-space, scaled to the whole error in validation, in which the "
            "noise of what lies within, and is measured, has a part.",
            "Scale": list(self.scale),
            # Single voxels are not measured, but a part of k-space is.
            "MeasuredKSpace": [round(float(mm / thick), 4) for mm, thick in zip(fine, coarse, strict=True)],
        }
        with write_atomically(path.with_name(path.name.removesuffix(".nii.gz") + ".json")) as temporary:
            temporary.write_text(json.dumps(description, indent=2) + "\n")


class UncertaintyReport:
    """Compares an inferer's spread with the errors in tissue, over cases with known HR.

    At the end it fits a and b of :func:`compute_standard_error` to mean square errors of groups of voxels. The groups
    are equally large and sorted by spread. It prints a and b, and each case's rank correlation (Spearman) of error and
    spread. It writes ``uncertainty.json`` and the calibration curve, ``uncertainty.png``.

    Args:
        inferer: with a spread; the results are its means.
        output_dir: folder of the report.
        scale: a and b of the drawn curve; None for the fitted ones.
    """

    def __init__(
        self, inferer: AxesInferer, output_dir: str | os.PathLike, scale: Sequence[float] | None = None
    ) -> None:
        self.inferer, self.output_dir, self.scale = inferer, Path(output_dir), scale

    def attach(self, engine: Engine) -> None:
        """Collect voxels of each case, and report at the end."""
        self.cases: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._collect_voxels)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _collect_voxels(self, engine: Any) -> None:
        output = engine.state.output[0]
        hr, sr = (torch.as_tensor(output[key])[0].float().cpu() for key in ("label", "pred"))
        tissue = np.flatnonzero((hr > AIR).numpy())
        chosen = np.random.default_rng(0).permutation(tissue)[:_VOXELS]
        error, spread = (v.flatten()[chosen].double().numpy() for v in (sr - hr, self.inferer.deviation[0, 0].cpu()))
        name = make_case_stem(str(output["label"].meta["filename_or_obj"]), engine.case.get("subject"))
        self.cases[name] = error, spread

    def _finish(self, engine: Engine) -> None:
        if not self.cases:
            return
        from scipy.stats import spearmanr  # here, because it takes long to load, and inference needs none

        error, spread = (np.concatenate(each) for each in zip(*self.cases.values(), strict=True))
        order = np.array_split(np.argsort(spread), _BINS)
        errors = np.array([np.mean(error[some] ** 2) for some in order])
        spreads = np.array([np.mean(spread[some] ** 2) for some in order])
        fitted = fit_calibration(spreads, errors)
        scale = fitted if self.scale is None else list(self.scale)
        ranks = {name: float(spearmanr(np.abs(e), s).statistic) for name, (e, s) in self.cases.items()}
        curve = np.sqrt([compute_standard_error(np.sqrt(spreads), scale) ** 2, errors])
        report = {"scale": fitted, "drawn_with": scale, "rank_correlation": ranks, "predicted": curve[0].tolist(),
                  "rms_error": curve[1].tolist()}  # fmt: skip
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.output_dir / "uncertainty.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
        from ..reports import draw_calibration  # here, because matplotlib takes long to load

        draw_calibration(self.output_dir / "uncertainty.png", *curve)
        print(f"standard error: --uncertainty_scale '[{fitted[0]:.4g},{fitted[1]:.4g}]'; rank correlation of error and")
        print("spread: " + ", ".join(f"{name} {rank:.3f}" for name, rank in ranks.items()))


def fit_calibration(spread: np.ndarray, error: np.ndarray) -> list[float]:
    """Fit a and b, neither negative, so that a^2 spread + b^2 has the least relative error; both are mean squares."""
    from scipy.optimize import nnls  # here, because it takes long to load, and inference needs none

    squares, _ = nnls(np.stack([spread / error, 1 / error], axis=1), np.ones(len(error)))
    return [float(root) for root in np.sqrt(squares)]
