"""Degradations in sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from .base import Degradation


class ComposeDegradations(Degradation):
    r"""Apply degradations one after the other, as the steps of one acquisition.

    .. math:: A = A_m \cdots A_2 A_1, \qquad A^T = A_1^T A_2^T \cdots A_m^T

    Factors and affines multiply. A real protocol has this order: the slice profile of the pulse; the sampled part of
    k-space (truncation, then ellipse and partial Fourier on the truncated grid); the noise.

    Args:
        degradations: the operators in their order, at least one.

    Raises:
        ValueError: when there is no degradation.

    Example:
        >>> import torch
        >>> from common.degradations import ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
        >>> scan = ComposeDegradations([
        ...     GaussianProfile((1, 1, 3)), KSpaceTruncation((2, 2, 1)), RicianNoise(0.01, seed=1),
        ... ])
        >>> scan(torch.rand(1, 1, 16, 16, 12)).shape
        torch.Size([1, 1, 8, 8, 4])
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
    def linear(self) -> bool:  # type: ignore[override]
        return all(degradation.linear for degradation in self.degradations)

    def lr_size(self, hr_size: Sequence[int]) -> tuple[int, ...]:
        sizes = super().lr_size(hr_size)
        if all(isinstance(factor, int) for degradation in self.degradations for factor in degradation.factors):
            return sizes
        # Rounded after each step, as in the steps themselves.
        for degradation in self.degradations:
            hr_size = degradation.lr_size(hr_size)
        return tuple(hr_size)

    def hr_size(self, lr_size: Sequence[int]) -> tuple[int, ...]:
        for degradation in reversed(self.degradations):
            lr_size = degradation.hr_size(lr_size)
        return tuple(lr_size)

    def _degrade(self, hr: Tensor) -> Tensor:
        volume = hr
        for degradation in self.degradations:
            volume = degradation(volume)
        return volume

    def _adjoint(self, lr: Tensor) -> Tensor:
        volume = lr
        for degradation in reversed(self.degradations):
            volume = degradation.adjoint(volume)
        return volume

    def why_not_linear(self) -> str:
        steps = [f"step {i} ({type(d).__name__})" for i, d in enumerate(self.degradations) if not d.linear]
        return f"{', '.join(steps)} is not linear. Take the adjoint of the steps before it."
