"""Pairs of LR and HR volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from monai.transforms import Compose

from ...physics.scale import in_plane, patch_of
from ...transforms import DenoiseSlicesd, LoadScand, MakeLRd, RegisterLRd
from ...values import is_true
from ..lists.datalist import SCANS
from ..loaders.slabs import PairedSlabLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class Pairs(Sets):
    """Pairs of LR and HR volumes in plane. Missing LR is made from HR.

    Args:
        group: of the HR volumes to learn from, "source" or "target".
        lr_patch: voxels of an LR patch along both axes in plane, or ``[n, n, 1]``.
        turned: whether pairs are mirrored and turned, if the degradation treats these alike.
        chance: whether each pair has a random number.
        register: whether a given LR volume is registered to its HR volume for training.
        denoise: whether LR volumes are denoised for training.
        options: of :class:`Sets`.

    Raises:
        ValueError: for a degradation that does not act in plane alone.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(8, [5, 0, 1, 2], spacing=1.5)

    def __init__(
        self,
        *,
        lr_patch: int | Sequence[int],
        group: str = "source",
        turned: bool | str = False,
        chance: bool | str = False,
        register: bool | str = False,
        denoise: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        in_plane(scale=self.scale)
        self.group = group
        alike = self.degradation.turns_alike() and self.scan_degradation.turns_alike()
        self._patches |= {"turned": is_true(turned, "turned") and alike, "chance": is_true(chance, "chance")}
        self._patches |= {"lr_patch": patch_of(lr_patch), "factors": self.degradation.factors}
        self.batch_keys = ("hr", "lr", "chance") if self._patches["chance"] else ("hr", "lr")
        self._register, self._denoise = is_true(register, "register"), is_true(denoise, "denoise")

    @cached_property
    def load(self) -> Compose:
        """Reads an entry to measure with it."""
        return self._load(training=False)

    @property
    def load_training(self) -> Compose:
        """Reads an entry to learn from it."""
        return self._load(training=True)

    def _load(self, training: bool) -> Compose:
        transforms: list[Any] = [LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True)]
        if training and self._register:
            transforms.append(
                RegisterLRd("lr", reference="hr", degradation=self.degradation, quality_dir=self.output_dir)
            )
        transforms.append(MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation))
        if training and self._denoise:
            transforms.append(DenoiseSlicesd("lr"))
        return Compose(transforms)

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr" and "lr"."""
        return self.cached(self.listed(self.group, SCANS, "hr"), self.load_training, SCANS, True)

    @cached_property
    def batches(self) -> PairedSlabLoader:
        """Batches of patches, "hr" and "lr"."""
        return PairedSlabLoader(volumes=self.train, **self._patches)
