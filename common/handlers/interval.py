"""The interval around each voxel of a result, written next to it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from nibabel.affines import voxel_sizes

from ..io.files import format_json, get_sidecar_path
from ..io.images import open_image
from ..io.writing import write_atomically
from ..metrics import Interval
from ..transforms import SaveVolumed
from ..transforms.scan.volume import attach_meta, convert_to_units
from ..values import parse_bool


class IntervalMap:
    """Writes the half width of the interval of every voxel, ``<name>_interval.nii.gz``, in the units of the result.

    It attaches to a :class:`~common.engines.CaseEvaluator` whose postprocessing has ``RestoreVolumed`` and
    ``SaveVolumed``. A JSON next to the volume says what share of voxels the interval holds, and how many people this
    was measured on.

    Args:
        uncertainty: whether to write intervals.
        interval: of the weights, as :meth:`common.metrics.Interval.describe` gives it; None if it is unknown.
        output_dir: folder of the results.
        bids: whether results are named as BIDS derivatives.
        spacing, grid_file: the grid that the user wants; the interval is known on the network's only.
    """

    def __init__(
        self,
        uncertainty: bool | str,
        interval: Mapping[str, Any] | None,
        output_dir: str | os.PathLike,
        bids: bool | str = False,
        spacing: float | None = None,
        grid_file: str | None = None,
    ) -> None:
        self.uncertainty = parse_bool(uncertainty, "uncertainty")
        self.save = SaveVolumed("interval", output_dir, "interval", bids, "super-resolved, half width", window=False)
        if not self.uncertainty:
            return
        if interval is None:
            raise ValueError(
                "uncertainty is true, but the error of these weights was not measured on people with known HR. Measure "
                "it: mri-sr judge --cases cases.csv --calibrate WEIGHTS.json, with the columns person, results, scan, "
                "hr; or leave out --uncertainty."
            )
        if spacing is not None or grid_file is not None:
            raise ValueError(
                "uncertainty is true, but the error was measured on the grid of the weights; leave out --spacing and "
                "--grid_file."
            )
        self.interval = Interval.read(interval)

    def attach(self, engine: Engine) -> None:
        """Write when a result has been written."""
        if self.uncertainty:
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._write)

    def _write(self, engine: Any) -> None:
        for output in engine.state.output:
            result, scan = output["pred"], output["image"]
            stored = open_image(scan.meta["filename_or_obj"]).affine
            factors = voxel_sizes(stored) / voxel_sizes(np.asarray(result.affine))
            voxels = torch.as_tensor(result)[0].float().numpy()
            width = self.interval.compute_half_width(voxels, convert_to_units(scan, scan), factors.tolist())
            volume = attach_meta(torch.from_numpy(width)[None], result.affine, scan.meta)
            entry: dict[Hashable, Any] = {"interval": volume, "name": engine.case.name}
            path = Path(self.save(entry)["saved_to"])
            description = {
                "Description": "Half width of an interval around each voxel of the super-resolved volume, in its "
                "units. On other people like those of the calibration, it holds the stated share of the voxels of a "
                "fully sampled scan; not of each kind of voxel, and not of scans unlike theirs.",
                "Level": self.interval.level,
                "Factors": dict(self.interval.factors),
                "CalibrationPeople": self.interval.people,
            }
            with write_atomically(get_sidecar_path(path)) as temporary:
                temporary.write_text(format_json(description, indent=2) + "\n")
