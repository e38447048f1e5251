"""Scans with thick slices, for methods that make slices thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from monai.transforms import Compose

from ...degradations import Interpolated
from ...physics.scale import across_slices
from ...transforms import CheckThickSlicesd
from ..lists.datalist import SCANS
from ..loaders.image_pairs import ImagePairLoader
from ..loaders.triplets import TripletLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class ThickSlices(Sets):
    """Base class of sets with thick slices. Missing LR is made from HR; given LR must have thick slices.

    Args:
        lr_patch: pixels of a patch; the second is across the slices.
        options: of :class:`Sets`.

    Raises:
        ValueError: for a degradation that does not act across the slices only.
    """

    def __init__(self, *, lr_patch: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        across_slices(scale=self.scale)
        self._patches["lr_patch"] = lr_patch

    @cached_property
    def load(self) -> Compose:
        """Reads an entry."""
        return Compose([*self.scans(), CheckThickSlicesd("lr", scale=self.scale[2])])


class HRImages(ThickSlices):
    """Images of HR volumes, and their degraded and interpolated versions.

    Args:
        planes: axes of a volume (X, Y, Z) across which images are taken.
        group: of the HR volumes to learn from, "source" or "target".
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [5, 0, 1, 2])

    def __init__(self, *, planes: Sequence[int] = (0, 1), group: str = "source", **options: Any) -> None:
        super().__init__(**options)
        self.planes, self.group = planes, group

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr"."""
        return self.cached(self.listed(self.group, SCANS, "hr"), self.load, ["hr"], True)

    @cached_property
    def batches(self) -> ImagePairLoader:
        """Batches of patches, "hr" and "lr"."""
        degradation = Interpolated(self.scan_degradation)
        return ImagePairLoader(self.train, "hr", degradation, planes=self.planes, **self._patches)


class Triplets(ThickSlices):
    """Three successive slices of LR scans; if the validation group is empty, there is no validation.

    Args:
        reach: largest distance between neighbouring images across an axis in plane; default half a slice's thickness.
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [0, 5, 1, 2])
    batch_keys = ("above", "slice", "below", "first", "second", "third")
    may_lack_validation = True

    def __init__(self, *, reach: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.reach = max(1, round(self.scale[2] / 2)) if reach is None else reach

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "lr"."""
        return self.cached(self.listed("target"), self.load, ["lr"], True)

    @cached_property
    def batches(self) -> TripletLoader:
        """Batches of patches, as :class:`~common.data.loaders.triplets.TripletLoader` gives them."""
        return TripletLoader(self.train, reach=self.reach, **self._patches)
