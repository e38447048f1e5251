"""The interval around each voxel of a result, written next to it."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import IterationEvents
from nibabel.affines import voxel_sizes

from ..io.files import format_json, get_sidecar_path
from ..io.images import open_image
from ..io.writing import write_atomically
from ..metrics.interval import Interval
from ..transforms.result_grid import ResampleResultd
from ..transforms.scan.save import make_width_saver
from ..transforms.scan.volume import attach_meta, convert_to_units
from ..weights.loading import read_overlay


class IntervalMap:
    """Writes the half width of the interval of every voxel, ``<name>_interval.nii.gz``, in the units of the result.

    It attaches to a :class:`CaseEvaluator` whose postprocessing has ``RestoreVolumed`` and
    ``SaveVolumed``. A JSON next to the volume says what share of voxels the interval holds, and how many people this
    was measured on.

    Args:
        checkpoint: file of the weights, whose overlay has the ``interval`` of :meth:`common.metrics.Interval.describe`.
    """

    def __init__(self, checkpoint: str | os.PathLike) -> None:
        interval = (read_overlay(checkpoint) or {}).get("interval")
        if interval is None:
            raise ValueError(
                f"{checkpoint}: the error of these weights was not measured on people with known HR. Leave out "
                "--uncertainty, or measure it: mri-sr judge --cases cases.csv --calibrate WEIGHTS.json, with the "
                "columns person, results, scan, hr."
            )
        self.interval = Interval.read(interval)

    def attach(self, engine: Any) -> None:
        """Write when a result has been written."""
        if any(isinstance(step, ResampleResultd) for step in engine.postprocessing.flatten().transforms):
            raise ValueError(
                "the error was measured on the grid of the weights; leave out --uncertainty, or --spacing and "
                "--grid_file."
            )
        self.save = make_width_saver(engine.postprocessing)
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
