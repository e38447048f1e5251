"""LR scans only, for 2-D networks that learn from the scans themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

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

    Missing LR is made from HR. If the validation group is empty, there is no validation.

    Args:
        lr_patch: pixels of a patch of an image, ``[h, w]``.
        image_degradation: of the training images; default that of ``degradation``, at their own size.
        across_slices: whether the method acts across slices only, so that LR must have thick slices.
        slice_axis: as for :class:`Sets`; None is also "SI" if all factors are equal.
        degradation, options: as for :class:`Sets`.

    Raises:
        ValueError: for factors other than [n, n, n], [n, n, 1] and [1, 1, n], or with ``across_slices`` the last.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [0, 5, 1, 2], spacing=1.0)
    may_lack_validation = True

    def __init__(
        self,
        *,
        degradation: Degradation,
        lr_patch: Sequence[int],
        image_degradation: ZeroShotImages | None = None,
        across_slices: bool | str = False,
        slice_axis: str | None = None,
        **options: Any,
    ) -> None:
        if slice_axis is None and len(set(degradation.factors)) == 1:
            slice_axis = "SI"
        super().__init__(degradation=degradation, slice_axis=slice_axis, **options)
        self.across_slices = is_true(across_slices, "across_slices")
        if self.across_slices:
            check_across_slices(scale=self.scale)
        images = image_degradation or ZeroShotImages(degradation, scales=(1.0,))
        self._patches |= {"degradation": images, "planes": images.planes, "scales": images.scales, "lr_patch": lr_patch}

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
        return ImagePairLoader(volumes=self.train, key="lr", **self._patches)
