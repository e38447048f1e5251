"""The spread of samples around each voxel of a result, written next to it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from monai.engines import IterationEvents
from monai.transforms import Compose

from ..degradations.base import Degradation
from ..inferers.diffusion import ResidualShiftInferer
from ..io.files import format_json, get_sidecar_path
from ..io.writing import write_atomically
from ..transforms.scan.save import make_width_saver
from ..transforms.scan.volume import RestoreVolumed

_DEVIATIONS = 2


class SpreadMap:
    """Writes two standard deviations of the samples of each voxel, ``<name>_interval.nii.gz``, in the units of the
    result, in the form of :class:`IntervalMap`.

    Nothing is written for one sample. The interval is not calibrated: samples share the network's errors, so it holds
    fewer errors than those of a normal distribution.

    Args:
        inferer: draws the samples.
        degradation: from the result to the scan, for the affine.
        postprocessing: writes the result.
    """

    def __init__(self, inferer: ResidualShiftInferer, degradation: Degradation, postprocessing: Compose) -> None:
        self.inferer, self.postprocessing = inferer, postprocessing
        self.restore = RestoreVolumed("interval", degradation=degradation, deviations=True)

    def attach(self, engine: Any) -> None:
        """Write when a result has been written."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._write)

    def _write(self, engine: Any) -> None:
        spread = self.inferer.spread
        if spread is None:
            return
        save = make_width_saver(self.postprocessing)
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            entry: dict[Hashable, Any] = {"interval": _DEVIATIONS * spread[0], "image": output["image"]}
            entry = {**self.restore(entry), "name": batch.get("name")}
            path = Path(save(entry)["saved_to"])
            description = {
                "Description": "Two standard deviations of the samples whose mean is the super-resolved volume, in its "
                "units. It is not calibrated: an error that all samples share is not in it.",
                "Samples": self.inferer.samples,
            }
            with write_atomically(get_sidecar_path(path)) as temporary:
                temporary.write_text(format_json(description, indent=2) + "\n")
