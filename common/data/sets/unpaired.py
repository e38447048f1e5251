"""Unpaired volumes of two groups: HR of the source, LR of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from monai.data import Dataset
from monai.transforms import Compose

from ...physics.scale import along_each_axis, patch_of
from ...transforms import LoadScand, MakeLRd, RandMisalignd
from ...values import is_true
from ..lists.datalist import check_misaligned
from ..lists.spacing import check_scale
from ..loaders.slabs import UnpairedSlabLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class Unpaired(Sets):
    """HR slabs of the source and LR slabs of the target, for methods that learn without pairs.

    Missing LR of target, validation and test is made from HR.

    Args:
        lr_patch: voxels of an LR slab along both axes in plane, or ``[h, w, slices]``.
        slices: of an LR slab.
        paired: whether batches also have "lr_source", the HR slab degraded by ``degradation``.
        misaligned: whether HR of the source is moved at random; source and target then have the same subjects.
        options: of :class:`Sets`.

    Raises:
        ValueError: for a degradation without three whole factors, or ``paired`` in a subclass without "lr_source".
            When ``train`` is first read: for LR scans whose spacing does not fit the factors, or for ``misaligned`` if
            source and target have different subjects.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(16, [7, 6, 1, 2], spacing=1.2)
    may_be_paired = True

    def __init__(
        self,
        *,
        lr_patch: int | Sequence[int],
        slices: int = 1,
        paired: bool | str = False,
        misaligned: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        along_each_axis(scale=self.scale)
        self.paired, self.misaligned = is_true(paired, "paired"), is_true(misaligned, "misaligned")
        self.batch_keys = ("hr", "lr", "lr_source") if self.paired else ("hr", "lr")
        if self.paired and not self.may_be_paired:
            raise ValueError(f"paired is true, but {type(self).__name__} gives no lr_source: leave paired out.")
        self._patches |= {"lr_patch": patch_of(lr_patch, slices), "factors": self.scale}

    def checked_source(self) -> list[dict]:
        """Entries of the source, after a check that both groups fit the degradation and ``misaligned``."""
        source, target = self.listed("source", "hr"), self.listed("target", ("hr", "lr"))
        check_misaligned(self.dataset_dir, self.misaligned)
        check_scale(source, target, self.scale, self.slice_axis)
        return source

    @cached_property
    def load_source(self) -> Compose:
        """Reads an entry of the source."""
        load = [LoadScand("hr", slice_axis=self.slice_axis)]
        moved = [RandMisalignd("hr")] if self.misaligned else []
        return Compose([*load, *moved, *([MakeLRd("hr", degradation=self.degradation)] if self.paired else [])])

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes of the source, "hr", and with ``paired`` "lr"."""
        return self.cached(self.checked_source(), self.load_source, ["hr", "lr"] if self.paired else ["hr"], True)

    @cached_property
    def target(self) -> VolumeCache:
        """Volumes of the target, "lr"."""
        return self.cached(self.listed("target", ("hr", "lr")), self.load, ["lr"], True)

    @cached_property
    def batches(self) -> UnpairedSlabLoader:
        """Batches of slabs, "hr" and "lr"."""
        return UnpairedSlabLoader(
            source=self.train, target=self.target, margin=None, paired=self.paired, **self._patches
        )

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self.listed("validation", ("hr", "lr")), self.load, ["hr", "lr"], True)

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "lr", and "hr" if known."""
        return Dataset(self.listed("test", ("hr", "lr")), self.load)
