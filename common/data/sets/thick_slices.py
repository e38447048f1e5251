"""Scans with thick slices, for methods that make these thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ...degradations import Degradation, Interpolated
from ...physics.scale import across_slices
from ...transforms import CheckThickSlicesd
from ..lists.datalist import SCANS
from ..loaders.image_pairs import ImagePairLoader
from ..loaders.triplets import TripletLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class ThickSlices(Sets):
    """What these sets have in common: LR is made of HR where it is not there, and its slices must be thick.

    Args:
        dataset_dir, output_dir, degradation, slice_axis, simulated, folds, fold, device: as for :class:`Sets`.
        scan_degradation: that makes LR of HR instead, on the same grids; default ``degradation``.
        lr_patch: pixels of a patch; the second is across the slices.
        batch_size: patches in a batch.
        seed: of the patches that are drawn.

    Raises:
        ValueError: for a degradation that does not act across the slices alone.
    """

    _may_lack_validation = False

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        degradation: Degradation,
        lr_patch: Sequence[int],
        batch_size: int,
        scan_degradation: Degradation | None = None,
        seed: int = 0,
        slice_axis: str | None = None,
        simulated: Mapping[str, Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dataset_dir, output_dir, simulated, degradation, slice_axis, folds, fold, device)
        self.scan_degradation = scan_degradation or degradation
        across_slices(scale=self.scale)
        self._patches = {"lr_patch": lr_patch, "batch_size": batch_size, "seed": seed, "device": device}

    @cached_property
    def load(self) -> Compose:
        """Reads an entry."""
        return Compose([*self.scans(), CheckThickSlicesd("lr", scale=self.scale[2])])

    @property
    def validates(self) -> bool:  # type: ignore[override]
        """Whether there is anything to validate with."""
        return not self._may_lack_validation or bool(self._validated)

    @property
    def learned_from(self) -> list[dict]:
        """Entries to learn from."""
        raise NotImplementedError(f"{type(self).__name__} must say which entries it learns from.")

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr" and "lr"."""
        return self.as_read(self.listed("test", SCANS, "hr"), self.load)

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self._validated, self.load, SCANS, False)

    @property
    def _validated(self) -> list[dict]:
        """Entries to validate with; of a cross-validation without such, the first with known HR that it learns from."""
        entries = self.listed("validation", SCANS, "hr", self._may_lack_validation)
        if self._folds is not None and not entries:
            return [entry for entry in self.learned_from if "hr" in entry][:1]
        return entries


class HRImages(ThickSlices):
    """Images of HR volumes, and what is left of them when they are degraded and interpolated.

    Args:
        planes: axes of a volume (X, Y, Z) across which images are taken.
        group: whose HR volumes it learns from, "source" or "target".
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [5, 0, 1, 2])

    def __init__(self, *, planes: Sequence[int] = (0, 1), group: str = "source", **options: Any) -> None:
        super().__init__(**options)
        self.planes, self.group = planes, group

    @property
    def learned_from(self) -> list[dict]:
        """Entries of the group, with HR."""
        return self.listed(self.group, SCANS, "hr")

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr"."""
        return self.cached(self.learned_from, self.load, ["hr"], True)

    @cached_property
    def batches(self) -> ImagePairLoader:
        """Batches of patches, "hr" and "lr"."""
        degradation = Interpolated(self.scan_degradation)
        return ImagePairLoader(self.train, "hr", degradation, planes=self.planes, **self._patches)


class Triplets(ThickSlices):
    """Three slices in a row of LR scans alone; where the validation group is empty, nothing validates.

    Args:
        reach: of images across an axis in plane, largest distance of two neighbours; default half a slice's thickness.
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [0, 5, 1, 2])
    batch_keys = ("above", "slice", "below", "first", "second", "third")
    _may_lack_validation = True

    def __init__(self, *, reach: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.reach = max(1, round(self.scale[2] / 2)) if reach is None else reach

    @property
    def learned_from(self) -> list[dict]:
        """Entries of the target group."""
        return self.listed("target")

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "lr"."""
        return self.cached(self.learned_from, self.load, ["lr"], True)

    @cached_property
    def batches(self) -> TripletLoader:
        """Batches of patches, as :class:`~common.data.loaders.triplets.TripletLoader` gives them."""
        return TripletLoader(self.train, reach=self.reach, **self._patches)
