"""What was added to the scans of inference, and HTML pages of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.engines import IterationEvents

from ...io.files import format_json, get_sidecar_path, read_json_object
from ...io.writing import write_atomically
from ...metrics.added_detail import measure_added_share, split_measured
from ...metrics.baseline import interpolate_cubic
from ...metrics.brightness_classes import divide_by_brightness
from ...transforms.result_grid import ResampleResultd
from ...transforms.scan.save import save_volume
from ...transforms.scan.volume import RestoreVolumed, convert_to_units, get_intensity_range
from ..files import find_written
from ..naming import rename_result
from .page import check_viewer, write_viewer


class ResultViewer:
    """Writes next to each result what was added to the scan, and a page that shows all in a browser.

    What was added, ``<name>_added.nii.gz``, has the units of the scan (:func:`common.metrics.split_measured`). In the
    result's JSON, ``Added`` is its share of the brightness of dark, middle and bright tissue, or under ``Unknown`` the
    reason why there is none. The page shows the scan, its cubic interpolation and the result, over which what was
    added can be laid. With the result's name and ``.html``
    it is written by :func:`common.program.pages.page.write_viewer`.

    The handler attaches to an evaluator whose postprocessing has ``RestoreVolumed`` and ``SaveVolumed``, after an
    :class:`InferenceResults`. The page reads its JSON for what made the result. The results of several scans have no
    degradation, so neither interpolation nor what was added.
    """

    def __init__(self) -> None:
        check_viewer()

    def attach(self, engine: Any) -> None:
        """Write the files when a result is written."""
        steps = engine.postprocessing.flatten().transforms
        of_steps = (step.degradation for step in steps if isinstance(step, (ResampleResultd, RestoreVolumed)))
        self.degradation = next(of_steps, None)
        # On the network's grid, before the result is brought to another.
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._split)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._write)

    def _split(self, engine: Any) -> None:
        self.added, self.unknown = None, "it was not made of one scan by one degradation."
        if self.degradation is not None:
            try:
                result = torch.as_tensor(engine.state.output["pred"][0]).detach().float()
                self.added = split_measured(result, self.degradation)[1].cpu()
            except ValueError as error:
                self.unknown = str(error)

    def _write(self, engine: Any) -> None:
        for output in engine.state.output:
            self._report(engine.case, output, get_sidecar_path(Path(output["saved_to"])).with_suffix(".html"))

    def _report(self, case: Any, output: Any, page: Path) -> None:
        scan, result, path = output["image"], output["pred"], Path(output["saved_to"])
        lr, affine = convert_to_units(scan, scan), np.asarray(scan.affine, dtype=np.float64)
        volumes, added = {"scan": nib.Nifti1Image(lr, affine)}, None
        about: dict[str, Any] = {"Unknown": self.unknown}
        if self.degradation is not None:
            interpolated = interpolate_cubic(lr, self.degradation.factors, self.degradation.offset)
            volumes["cubic"] = nib.Nifti1Image(interpolated, np.asarray(self.degradation.compute_hr_affine(affine)))
            if self.added is not None:
                about = _measure_shares(self.added, interpolated, scan)
                restore = RestoreVolumed("added", "image", self.degradation, deviations=True)
                added = restore({"added": self.added, "image": scan})["added"]
        if added is not None and not _is_on_grid(added, result):
            added, about = None, {"Unknown": "the result was resampled to another grid, --spacing or --grid_file."}
        if added is not None:
            try:
                save_volume(added, rename_result(path, "added"), "super-resolved, added detail", window=False)
            except ValueError as error:
                added, about = None, {"Unknown": str(error)}
        record = _describe(path, about)
        volumes["SR"] = nib.Nifti1Image(torch.as_tensor(result)[0].float().numpy(), np.asarray(result.affine))
        # Without the scan's name, which is the page's title.
        title = Path(str(scan.meta["filename_or_obj"])).name
        record |= {
            key: [case.strip_name(text).removeprefix(f"{title}: ") for text in record.get(key, ())]
            for key in ("Warnings", "Notices")
        }
        overlay = None if added is None else nib.Nifti1Image(added[0].numpy(), np.asarray(added.affine))
        write_viewer(page, volumes, title, record=record, added=overlay)


def _measure_shares(added: torch.Tensor, interpolated: np.ndarray, scan: MetaTensor) -> dict[str, Any]:
    """Shares of what was added by class of tissue, or why there are none."""
    low, high = get_intensity_range(scan)
    try:
        classes = divide_by_brightness(interpolated)
    except ValueError as error:
        return {"Unknown": str(error)}
    shares = measure_added_share(interpolated, added[0].numpy() * (high - low), classes)
    return {name: round(share, 4) for name, share in shares.items() if name != "air"}


def _is_on_grid(volume: MetaTensor, other: MetaTensor) -> bool:
    return volume.shape == other.shape and np.allclose(volume.affine, other.affine, atol=1e-3)


def _describe(path: Path, shares: dict[str, Any]) -> dict[str, Any]:
    """Add what is known of the added part to the JSON of a result; returns what that says of how it was made."""
    file = get_sidecar_path(path)
    metadata, _ = read_json_object(find_written(file))
    record = metadata.setdefault("SuperResolution", {})
    record["Added"] = shares
    with write_atomically(file) as temporary:
        temporary.write_text(format_json(metadata, indent=2) + "\n")
    return record
