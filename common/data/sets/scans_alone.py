"""Scans alone: what a network for images learns from LR volumes themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ...degradations import Degradation, ZeroShotImages
from ...physics.scale import across_slices as check_across_slices
from ...transforms import CheckThickSlicesd
from ...values import is_true
from ..loaders.image_pairs import ImagePairLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class ScansAlone(Sets):
    """LR volumes, whose images are degraded once more, for methods that learn from the scans themselves.

    LR is made of HR where it is not there. Where the validation group is empty nothing validates.

    Args:
        dataset_dir, output_dir, degradation, simulated, folds, fold, device: as for :class:`Sets`.
        scan_degradation: that makes LR of HR instead, on the same grids; default ``degradation``.
        lr_patch: pixels of a patch of an image, ``[h, w]``.
        batch_size: patches in a batch.
        image_degradation: of the images that teach; default that of ``degradation``, at their own size.
        across_slices: whether the method acts across slices alone, so that LR must have thick ones.
        seed: of the patches that are drawn.
        slice_axis: as for :class:`Sets`; None is "SI" too where the factors are all alike.

    Raises:
        ValueError: for factors other than [n, n, n], [n, n, 1] and [1, 1, n], or with ``across_slices`` the last.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [0, 5, 1, 2], spacing=1.0)

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        degradation: Degradation,
        lr_patch: Sequence[int],
        batch_size: int,
        scan_degradation: Degradation | None = None,
        image_degradation: ZeroShotImages | None = None,
        across_slices: bool | str = False,
        seed: int = 0,
        slice_axis: str | None = None,
        simulated: Mapping[str, Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if slice_axis is None and len(set(degradation.factors)) == 1:
            slice_axis = "SI"
        super().__init__(dataset_dir, output_dir, simulated, degradation, slice_axis, folds, fold, device)
        self.scan_degradation = scan_degradation or degradation
        self.across_slices = is_true(across_slices, "across_slices")
        if self.across_slices:
            check_across_slices(scale=self.scale)
        images = image_degradation or ZeroShotImages(degradation, scales=(1.0,))
        self._patches = {
            "degradation": images,
            "planes": images.planes,
            "lr_patch": lr_patch,
            "batch_size": batch_size,
            "scales": images.scales,
            "seed": seed,
        }

    @cached_property
    def load(self) -> Compose:
        """Reads an entry."""
        return Compose([*self.scans(), *([CheckThickSlicesd("lr", self.scale[2])] if self.across_slices else [])])

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "lr"."""
        return self.cached(self.listed("target", ("hr", "lr")), self.load, ["lr"], True)

    @cached_property
    def batches(self) -> ImagePairLoader:
        """Batches of patches, "hr" and "lr"."""
        return ImagePairLoader(volumes=self.train, key="lr", device=self.device, **self._patches)

    @property
    def validates(self) -> bool:  # type: ignore[override]
        """Whether there are volumes whose HR is known to validate with."""
        return bool(self._known)

    @cached_property
    def _known(self) -> list[dict]:
        found = self.listed("validation", ("hr", "lr"), "hr", True)
        if found or self._folds is None:
            return found
        return [entry for entry in self.listed("target", ("hr", "lr")) if "hr" in entry][:1]

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self._known, self.load, ["hr", "lr"], False)

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr" and "lr"."""
        return self.as_read(self.listed("test", ("hr", "lr"), "hr"), self.load)
