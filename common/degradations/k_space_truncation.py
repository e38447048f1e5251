"""Truncation of k-space: a scan with the same field of view and fewer k-space lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import SPATIAL_DIMS, Degradation

_AT_ONCE = 2**19  # values; a transform needs several times the memory of its input, and these fit into a cache


class KSpaceTruncation(Degradation):
    r"""Keep the central block of k-space, as a scan with larger voxels and the same field of view does.

    For each axis of N samples, with n = N / factor,

    .. math:: (A x)_m = \frac{1}{N}\,\mathrm{Re} \sum_{k=-\lfloor n/2 \rfloor}^{\lceil n/2 \rceil - 1}
              X_k\, e^{2 \pi i k m / n}, \qquad X = \mathrm{FFT}(x)

    A scanner samples the Fourier transform of the object; the distance it covers from the centre sets the resolution.
    Voxels grow and edges ring (Gibbs). Sample 0 does not move: LR voxel i lies on HR voxel ``factor * i`` (offset 0).
    The mean intensity does not change. Signals below the new Nyquist frequency give exactly ``x[::factor]``.

    For even n only the sample at -n/2 is acquired, not its partner at +n/2. Its real part is taken axis by axis. This
    keeps k-space Hermitian, and the operator real, linear and symmetric in the axes. No magnitude is taken, so ringing
    may fall below zero; append :class:`RicianNoise` for the magnitude. ``prod(factors)`` times the adjoint is the
    zero-filled (sinc) interpolation that scanners offer.

    Args:
        factors: HR voxels per LR voxel along each spatial axis, e.g. (2, 2, 1), (2, 2, 2) or (4, 1, 1).

    Example:
        >>> import torch
        >>> from common.degradations import KSpaceTruncation
        >>> hr = torch.rand(1, 1, 16, 16, 12)
        >>> lr = KSpaceTruncation((2, 2, 1))(hr)
        >>> lr.shape
        torch.Size([1, 1, 8, 8, 12])
        >>> torch.allclose(lr.mean(), hr.mean())
        True

    References:
        Liu et al., Unsupervised Representation Learning for 3-Dimensional MRI Super-Resolution with Degradation
        Adaptation, IEEE TAI 2024, section II-A.
        Chen et al., Efficient and Accurate MRI Super-Resolution using a Generative Adversarial Network and 3D
        Multi-Level Densely Connected Network, MICCAI 2018.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__(factors)

    # Each axis in turn becomes the last, because lines that are contiguous in memory are transformed three times as
    # fast. The axis that is already contiguous is the first to shrink and the last to grow.
    def _degrade(self, hr: Tensor) -> Tensor:
        volume = hr
        for factor in reversed(self.factors):
            if factor > 1:
                volume = _in_pieces(_truncate, volume, factor)
            volume = volume.movedim(-1, -SPATIAL_DIMS)
        return volume.contiguous()

    def _adjoint(self, lr: Tensor) -> Tensor:
        volume = lr
        for factor in self.factors:
            volume = volume.movedim(-SPATIAL_DIMS, -1)
            if factor > 1:
                volume = _in_pieces(_zero_fill, volume, factor)
        return volume.contiguous()


def _in_pieces(operator: Callable[[Tensor, int], Tensor], volume: Tensor, factor: int) -> Tensor:
    """Apply an operator along the last axis to parts of a large volume in turn; results differ by rounding only."""
    count = math.ceil(volume.numel() / _AT_ONCE)
    if count == 1:
        return operator(volume.contiguous(), factor)
    across = max(-3, -2, key=volume.stride)  # so each piece is contiguous in memory
    result: Any = None
    start = 0
    for piece in volume.chunk(count, across):
        part = operator(piece.contiguous(), factor)
        if result is None:
            result = part.new_empty((*volume.shape[:-1], part.shape[-1]))
        result.narrow(across, start, piece.shape[across]).copy_(part)
        start += piece.shape[across]
    return result


def _truncate(volume: Tensor, factor: int) -> Tensor:
    size = volume.shape[-1] // factor
    k_space = torch.fft.rfft(volume, norm="forward")[..., : size // 2 + 1]
    if size % 2 == 0:
        # FFT libraries differ in how a complex-to-real FFT treats an imaginary part at Nyquist.
        k_space[..., -1].imag.zero_()
    return torch.fft.irfft(k_space, n=size, norm="forward")


def _zero_fill(volume: Tensor, factor: int) -> Tensor:
    size = volume.shape[-1]
    k_space = torch.fft.rfft(volume)
    if size % 2 == 0:
        # The one sample at -n/2 becomes a pair of samples, at -n/2 and n/2, on the finer grid.
        k_space[..., -1].mul_(0.5)
    return torch.fft.irfft(k_space, n=size * factor)
