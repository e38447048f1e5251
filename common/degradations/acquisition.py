"""The acquisition of LR by a scanner."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Degradation
from .compose import ComposeDegradations, choose_degradation
from .k_space import KSpaceTruncation, PartialFourier
from .profiles import GaussianProfile
from .rician_noise import RicianNoise


def make_acquisition(
    factors: Sequence[int], width: float | None = None, partial_fourier: float = 1.0, sigma: float = 0.0, seed: int = 0
) -> ComposeDegradations:
    """A scanner's acquisition of slices along the last axis, on the grid of :func:`choose_degradation`.

    Args:
        factors: HR voxels per LR voxel along each axis, three positive integers.
        width: slice thickness in distances of the slices; the rest is a gap. None for that of
            :func:`choose_degradation`: slices that touch, or k-space that is truncated across the slices too.
        partial_fourier: acquired fraction of the lines along the second axis, above 0.5, at most 1.
        sigma: standard deviation of the noise in each channel, in the units of the image.
        seed: of the noise.

    Returns:
        The steps of the acquisition, which are linear if there is no noise. The magnitude is taken with noise only.
    """
    whole = choose_degradation(factors)
    steps: list[Degradation] = [whole]
    if width is not None:
        steps = [GaussianProfile((1, 1, factors[2]), width, whole.offset)]
        if max(factors[:2]) > 1:
            steps.append(KSpaceTruncation((*factors[:2], 1)))
    if partial_fourier != 1:
        steps.append(PartialFourier(partial_fourier, 1))
    if sigma:
        steps.append(RicianNoise(sigma, seed))
    return ComposeDegradations(steps)
