"""Pairs of slabs of the source only: the supervised counterpart of unpaired training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from monai.transforms import Compose, RandFlipd

from ...degradations import Degradation
from ...transforms import LoadScand, MakeLRd, RandMisalignd, RegisterHRd
from ...values import is_true
from ..lists.datalist import check_misaligned
from ..loaders.slabs import PairedSlabLoader
from ..loaders.volumes import VolumeCache
from .in_context import across_any_axis
from .unpaired import Unpaired


class SourcePairs(Unpaired):
    """HR slabs of the source with LR at the same place, for supervised training of a method that needs no pairs.

    Missing LR is made from HR. Validation and test are those of :class:`Unpaired`.

    Args:
        source_degradation: makes LR from the source's HR; default ``degradation``.
        copies: number of copies of each HR volume, mirrored at random along each axis before they are degraded. Scans
            with their own LR are used once, unchanged.
        registered: whether HR that was moved (``misaligned``) is registered to LR again.
        fourier_encoded, any_axis: as for :class:`UnpairedInContext`.
        options: of :class:`Unpaired`.

    Attributes:
        turns: kinds of slabs in a batch, by the axis across them.
    """

    may_be_paired = False

    def __init__(
        self,
        *,
        source_degradation: Degradation | None = None,
        copies: int = 4,
        registered: bool | str = False,
        fourier_encoded: Sequence[bool] = (True, True, True),
        any_axis: bool | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.batch_keys = ("hr", "lr", "turn")
        self.source_degradation = source_degradation or self.degradation
        self.copies, self.registered = copies, is_true(registered, "registered")
        encoded = [is_true(each, "fourier_encoded") for each in fourier_encoded]
        self.any_axis = across_any_axis(any_axis, self.scale, encoded)
        self.turns = 3 if self.any_axis else 1

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr" and "lr"."""
        entries = self.listed("source", ("hr", "lr"), "hr")
        check_misaligned(self.dataset_dir, self.misaligned)
        known = any("lr" in entry for entry in entries)
        load = [
            LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True),
            *([] if known else [RandFlipd("hr", prob=0.5, spatial_axis=axis) for axis in range(3)]),
            MakeLRd("hr", degradation=self.source_degradation, allow_missing_keys=True),
            *([RandMisalignd("hr")] if self.misaligned else []),
            *([RegisterHRd("hr", lr_key="lr", degradation=self.degradation)] if self.registered else []),
        ]
        copies = [entry for entry in entries for _ in range(1 if "lr" in entry else self.copies)]
        return self.cached(copies, Compose(load), ["hr", "lr"], True)

    @cached_property
    def batches(self) -> PairedSlabLoader:  # type: ignore[override]
        """Batches of slabs, "hr" and "lr"."""
        return PairedSlabLoader(volumes=self.train, any_axis=self.any_axis, **self._patches)
