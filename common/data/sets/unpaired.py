"""Volumes of two groups that nothing pairs: HR of the source, LR of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ...degradations import Degradation
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

    LR of target, validation and test is made of HR where it is not there.

    Args:
        dataset_dir, output_dir, degradation, slice_axis, simulated, folds, fold, device: as for :class:`Sets`.
        scan_degradation: that makes LR of HR instead, on the same grids; default ``degradation``.
        lr_patch: voxels of an LR slab along both axes in plane, or ``[h, w, slices]``.
        batch_size: slabs in a batch.
        slices: of an LR slab.
        paired: whether batches have "lr_source" too, what ``degradation`` makes of the HR slab.
        misaligned: whether HR of the source is moved at random, where source and target are the same subjects.
        seed: of the slabs that are drawn.

    Raises:
        ValueError: for a degradation without three whole factors. When ``train`` is first read: for LR scans of another
            spacing than the factors ask for, or ``misaligned`` and a cohort of other subjects.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(16, [7, 6, 1, 2], spacing=1.2)

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        degradation: Degradation,
        lr_patch: int | Sequence[int],
        batch_size: int,
        slices: int = 1,
        scan_degradation: Degradation | None = None,
        paired: bool | str = False,
        misaligned: bool | str = False,
        seed: int = 0,
        slice_axis: str | None = None,
        simulated: Mapping[str, Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dataset_dir, output_dir, simulated, degradation, slice_axis, folds, fold, device)
        self.scan_degradation = scan_degradation or degradation
        along_each_axis(scale=self.scale)
        self.paired, self.misaligned = is_true(paired, "paired"), is_true(misaligned, "misaligned")
        self.batch_keys = ("hr", "lr", "lr_source") if self.paired else ("hr", "lr")
        self._slabs = {
            "lr_patch": patch_of(lr_patch, slices),
            "factors": self.scale,
            "batch_size": batch_size,
            "seed": seed,
            "device": device,
            "margin": None,
            "paired": self.paired,
        }

    def checked_source(self) -> list[dict]:
        """Entries of the source, when those of both groups suit the degradation and ``misaligned``."""
        source, target = self.listed("source", "hr"), self.listed("target", ("hr", "lr"))
        check_misaligned(self.dataset_dir, self.misaligned)
        check_scale(source, target, self.scale, self.slice_axis)
        return source

    @cached_property
    def load(self) -> Compose:
        """Reads an entry of target, validation or test."""
        return Compose(self.scans())

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
        return UnpairedSlabLoader(source=self.train, target=self.target, **self._slabs)

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self.listed("validation", ("hr", "lr")), self.load, ["hr", "lr"], False)

    @property
    def test(self) -> Dataset:
        """Volumes to measure with; "hr" where it is known, and "lr"."""
        return self.as_read(self.listed("test", ("hr", "lr")), self.load)
