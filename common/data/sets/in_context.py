"""Unpaired slabs for a method that learns the degradation: HR with its surroundings, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from monai.transforms import Compose, CopyItemsd, Lambdad

from ...degradations import BandLimit
from ...physics.noise import noise_levels as measured_noise
from ...transforms import LoadScand, RandMisalignd
from ...values import is_true
from ..loaders.slabs import UnpairedSlabLoader
from ..loaders.volumes import VolumeCache
from .unpaired import Unpaired


def across_any_axis(any_axis: bool | str | None, factors: Sequence[int], fourier_encoded: Sequence[bool]) -> bool:
    """Whether slabs are cut across any axis of a volume, not the last only.

    Args:
        any_axis: the config's value; None for True if the axes are alike.
        factors: of the super-resolution, for each axis.
        fourier_encoded: whether each axis is Fourier-encoded.

    Raises:
        ValueError: when ``any_axis`` is true and the axes are not alike.
    """
    if any_axis is None:
        return len(set(factors)) == 1 and all(fourier_encoded)
    any_axis = is_true(any_axis, "any_axis")
    if any_axis and len(set(fourier_encoded)) > 1:
        raise ValueError(
            "any_axis is true, but the axes are not encoded alike (fourier_encoded): slabs of one kind cannot be "
            "turned into another. Leave --any_axis out."
        )
    return any_axis


class UnpairedInContext(Unpaired):
    """:class:`Unpaired` with "hr_context", "noise", "training_noise", "turn" and "lr_turn" in its batches.

    See :class:`common.data.UnpairedSlabLoader` for these keys.

    Args:
        margin: HR voxels around the HR slab in "hr_context".
        fourier_encoded: whether each axis is Fourier-encoded; along these "hr_context" is limited to LR's band.
        any_axis: whether slabs are cut across any axis of the volumes; None for True if the axes are alike.
        noise_levels: standard deviations of the noise in the target's scans; None to measure them in air.
        training_noise: standard deviations of the noise that the network is trained on; None for ``noise_levels``.
        options: of :class:`Unpaired`.

    Attributes:
        turns: kinds of slabs in a batch, by the axis across them: 3 with ``any_axis``, else 1.

    Raises:
        ValueError: as :class:`Unpaired`, or when ``any_axis`` is true and the axes are not encoded alike.
    """

    may_be_paired = False

    def __init__(
        self,
        *,
        margin: int,
        fourier_encoded: Sequence[bool] = (True, True, True),
        any_axis: bool | str | None = None,
        noise_levels: Sequence[float] | None = None,
        training_noise: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.fourier_encoded = [is_true(encoded, "fourier_encoded") for encoded in fourier_encoded]
        self.any_axis = across_any_axis(any_axis, self.scale, self.fourier_encoded)
        self.turns = 3 if self.any_axis else 1
        self.batch_keys = ("hr", "hr_context", "lr", "noise", "training_noise", "turn", "lr_turn")
        self._noise_levels = noise_levels
        self._patches |= {"margin": margin, "any_axis": self.any_axis, "training_noise": training_noise}

    @cached_property
    def load_source(self) -> Compose:
        """Reads an entry of the source."""
        band = BandLimit([f if encoded else 1 for f, encoded in zip(self.scale, self.fourier_encoded, strict=True)])
        moved = [RandMisalignd("hr")] if self.misaligned else []
        return Compose(
            [
                LoadScand("hr", slice_axis=self.slice_axis),
                *moved,
                CopyItemsd("hr", names="hr_band"),
                Lambdad("hr_band", func=band),
            ]
        )

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes of the source, "hr", and "hr_band", the degradation's input."""
        return self.cached(self.checked_source(), self.load_source, ["hr", "hr_band"], True)

    @cached_property
    def batches(self) -> UnpairedSlabLoader:
        """Batches of slabs, with context and noise."""
        source = self.train
        levels = measured_noise(self.target.items) if self._noise_levels is None else self._noise_levels
        return UnpairedSlabLoader(source=source, target=self.target, noise_levels=levels, paired=False, **self._patches)
