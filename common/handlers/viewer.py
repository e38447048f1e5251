"""HTML pages of the results of inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents

from ..degradations import Degradation
from ..metrics import interpolate_cubic
from ..transforms.scan.volume import convert_to_units
from ..values import parse_bool


class ResultViewer:
    """Writes a page next to each result that shows the scan, its cubic interpolation and the result in a browser.

    The page is written by :func:`common.reports.viewer`, with the result's name and ``.html``. The handler attaches to
    an evaluator whose postprocessing has ``RestoreVolumed`` and ``SaveVolumed``, after an :class:`InferenceResults`.
    The page reads its JSON for what made the result.

    Args:
        degradation: from the result to the scan; gives the positions of LR voxels. None: without interpolation.
        report: whether to write pages.

    Raises:
        ModuleNotFoundError: with ``report``, without the package that brings NiiVue.
    """

    def __init__(self, degradation: Degradation | None = None, report: bool | str = False) -> None:
        self.degradation = degradation
        self.report = parse_bool(report, "report")
        if self.report:
            from ..reports import check_viewer  # here, because matplotlib takes long to load

            check_viewer()

    def attach(self, engine: Engine) -> None:
        """Write a page when a result is written."""
        if self.report:
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._write)

    def _write(self, engine: Any) -> None:
        from ..reports import read_result_record, write_viewer

        for output in engine.state.output:
            scan, result, path = output["image"], output["pred"], Path(output["saved_to"])
            lr, affine = convert_to_units(scan, scan), np.asarray(scan.affine, dtype=np.float64)
            volumes = {"scan": nib.Nifti1Image(lr, affine)}
            if self.degradation is not None:
                interpolated = interpolate_cubic(lr, self.degradation.factors, self.degradation.offset)
                volumes["cubic"] = nib.Nifti1Image(interpolated, np.asarray(self.degradation.compute_hr_affine(affine)))
            volumes["SR"] = nib.Nifti1Image(torch.as_tensor(result)[0].float().numpy(), np.asarray(result.affine))
            page = path.with_name(path.name.removesuffix(".nii.gz") + ".html")
            # Without the scan's name, which is the page's title.
            warned = [engine.case.strip_name(text) for text in engine.case.warnings]
            about = {**(read_result_record(path) or {}), "Warnings": warned}
            write_viewer(page, volumes, Path(str(scan.meta["filename_or_obj"])).name, record=about)
