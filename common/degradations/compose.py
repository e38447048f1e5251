"""Degradations in sequence or drawn at random, and those of scanners."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import SPATIAL_DIMS, Degradation, make_generator
from .k_space import BandLimit, KSpaceTruncation
from .profiles import GaussianProfile, InPlaneKernel
from .rician_noise import RicianNoise


class ComposeDegradations(Degradation):
    r"""Apply degradations one after the other, as the steps of one acquisition.

    .. math:: A = A_m \cdots A_2 A_1, \qquad A^T = A_1^T A_2^T \cdots A_m^T

    Factors and affines multiply. A real protocol has this order: the slice profile of the pulse; the sampled part of
    k-space (truncation, then ellipse and partial Fourier on the truncated grid); the noise.

    Args:
        degradations: the operators in their order, at least one.

    Example:
        >>> from common.degradations import ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
        >>> scan = ComposeDegradations([GaussianProfile((1, 1, 3)), KSpaceTruncation((2, 2, 1)), RicianNoise(0.01)])
        >>> scan.factors, scan.offset
        ((2, 2, 3), (0.0, 0.0, 1.0))
    """

    whole_factors = False

    def __init__(self, degradations: Sequence[Degradation]) -> None:
        if not degradations:
            raise ValueError("ComposeDegradations: expected at least one degradation, got an empty list.")
        factors, offset = np.ones(3), np.zeros(3)
        for degradation in degradations:
            offset = offset + factors * np.array(degradation.offset)
            factors = factors * np.array(degradation.factors)
        super().__init__(factors, offset)
        self.degradations: Any = nn.ModuleList(degradations)

    @property
    def is_linear(self) -> bool:  # type: ignore[override]
        return all(degradation.is_linear for degradation in self.degradations)

    def compute_lr_size(self, hr_size: Sequence[int]) -> tuple[int, ...]:
        sizes = super().compute_lr_size(hr_size)
        if all(isinstance(factor, int) for degradation in self.degradations for factor in degradation.factors):
            return sizes
        # Rounded after each step, as in the steps themselves.
        for degradation in self.degradations:
            hr_size = degradation.compute_lr_size(hr_size)
        return tuple(hr_size)

    def compute_hr_size(self, lr_size: Sequence[int]) -> tuple[int, ...]:
        for degradation in reversed(self.degradations):
            lr_size = degradation.compute_hr_size(lr_size)
        return tuple(lr_size)

    def _degrade(self, hr: Tensor) -> Tensor:
        return functools.reduce(lambda volume, degradation: degradation(volume), self.degradations, hr)

    def _adjoint(self, lr: Tensor) -> Tensor:
        return functools.reduce(lambda volume, degradation: degradation.adjoint(volume), self.degradations[::-1], lr)

    def explain_nonlinearity(self) -> str:
        steps = [f"step {i} ({type(d).__name__})" for i, d in enumerate(self.degradations) if not d.is_linear]
        return f"{', '.join(steps)} is not linear. Take the adjoint of the steps before it."


class RandomDegradation(Degradation):
    """Degrade each volume by one of several protocols, drawn at random, like scans from several scanners.

    The draw depends on the seed and the volume only, like the noise of :class:`RicianNoise`. So a volume is degraded in
    the same way in any order or process, and after a resume. The choice is not linear in the volume, so there is no
    adjoint.

    Args:
        degradations: the protocols, at least one, with the same factors and offset.
        seed: of the draw.
    """

    is_linear = False

    def __init__(self, degradations: Sequence[Degradation], seed: int = 0) -> None:
        grids = sorted({(tuple(d.factors), tuple(d.offset)) for d in degradations})
        if len(grids) != 1:
            raise ValueError(
                "RandomDegradation: expected one or more degradations with the same factors and offset, got "
                + (", ".join(f"factors {factors} and offset {offset}" for factors, offset in grids) or "none")
                + ". LR voxels must lie at the same places, whichever is drawn."
            )
        super().__init__(*grids[0])
        self.degradations = nn.ModuleList(degradations)
        self.seed = seed

    def _degrade(self, hr: Tensor) -> Tensor:
        volumes = hr.reshape(-1, *hr.shape[-SPATIAL_DIMS:])
        lr = torch.stack([self.degradations[self._choose_index(volume)](volume) for volume in volumes])
        return lr.reshape(*hr.shape[:-SPATIAL_DIMS], *lr.shape[-SPATIAL_DIMS:])

    def _choose_index(self, volume: Tensor) -> int:
        return int(torch.randint(len(self.degradations), (), generator=make_generator(self.seed, volume)))

    def explain_nonlinearity(self) -> str:
        return "which degradation acts depends on the volume."


def make_random_blur(
    kernels: Tensor, factor: int, offset: float = 0.0, noise_levels: Sequence[float] | None = None, seed: int = 0
) -> RandomDegradation:
    """Degrade each volume by one of several kernels in plane, drawn at random.

    Args:
        kernels: ``(N, K, K)``.
        factor: HR pixels per LR pixel.
        offset: of the kernels' centres, as for :class:`InPlaneKernel`.
        noise_levels: standard deviations of Rician noise, assigned to the kernels in turn; None for no noise.
        seed: of the draw.
    """
    planes: list[Degradation] = [InPlaneKernel(kernel, factor, offset) for kernel in kernels]
    if noise_levels is not None:
        levels = itertools.cycle(noise_levels)
        planes = [ComposeDegradations([plane, RicianNoise(next(levels), seed=0)]) for plane in planes]
    return RandomDegradation(planes, seed)


def make_forward_operator(degradation: Degradation, band_limited: bool) -> Degradation:
    """The operator that back projection inverts.

    Args:
        degradation: of the config.
        band_limited: whether the scan holds only the frequencies that it samples, on the grids of ``degradation``.

    Returns:
        Truncation of k-space if band-limited, else ``degradation`` itself.
    """
    if not band_limited:
        return degradation
    factors = degradation.factors
    # Such a narrow profile only samples.
    return ComposeDegradations([BandLimit(factors), GaussianProfile(factors, fwhm=0.02)])


def choose_degradation(factors: Sequence[Any]) -> Degradation:
    """A Gaussian profile if factors ``(1, 1, n)`` act across the slices only, else truncation of k-space."""
    return GaussianProfile(factors) if list(factors[:2]) == [1, 1] else KSpaceTruncation(factors)
