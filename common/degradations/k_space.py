"""Degradations of k-space: truncation, and weights on the volume's own grid."""

from __future__ import annotations

import functools
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

    Voxels grow and edges ring (Gibbs). Sample 0 does not move: LR voxel i lies on HR voxel ``factor * i`` (offset 0).
    The mean intensity does not change. Signals below the new Nyquist frequency give exactly ``x[::factor]``.

    For even n only the sample at -n/2 is acquired, not its partner at +n/2. Its real part is taken axis by axis, which
    keeps the operator real, linear and symmetric in the axes. No magnitude is taken, so ringing may fall below zero;
    append :class:`RicianNoise` for the magnitude. ``prod(factors)`` times the adjoint is zero-filled interpolation.

    Args:
        factors: HR voxels per LR voxel along each spatial axis, three positive integers.

    Example:
        >>> import torch
        >>> from common.degradations import KSpaceTruncation
        >>> KSpaceTruncation((2, 2, 1))(torch.rand(1, 1, 16, 16, 12)).shape
        torch.Size([1, 1, 8, 8, 12])

    References:
        Liu et al. 2023, section II-A; Chen et al. 2018 (MICCAI).
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__(factors)

    # Each axis in turn becomes the last, because lines that are contiguous in memory are transformed three times as
    # fast. The axis that is already contiguous is the first to shrink and the last to grow.
    def _degrade(self, hr: Tensor) -> Tensor:
        volume = hr
        for factor in reversed(self.factors):
            if factor > 1:
                volume = _apply_in_pieces(_truncate, volume, factor)
            volume = volume.movedim(-1, -SPATIAL_DIMS)
        return volume.contiguous()

    def _adjoint(self, lr: Tensor) -> Tensor:
        volume = lr
        for factor in self.factors:
            volume = volume.movedim(-SPATIAL_DIMS, -1)
            if factor > 1:
                volume = _apply_in_pieces(_zero_fill, volume, factor)
        return volume.contiguous()


def _apply_in_pieces(operator: Callable[[Tensor, int], Tensor], volume: Tensor, factor: int) -> Tensor:
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


class KSpaceFilter(Degradation):
    r"""A degradation that weights k-space on the volume's own grid.

    .. math:: A = F^{-1}\,\mathrm{diag}(w)\,F, \qquad w(k) = w(-k) \in \mathbb{R}

    The weights are real and symmetric, so a real volume stays real and the operator is its own adjoint.

    Subclasses implement ``compute_transfer_function``.

    Args:
        axes: the spatial axes (0, 1, 2) that are transformed.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= set(range(SPATIAL_DIMS)):
            raise ValueError(f"{type(self).__name__}: axes must be distinct spatial axes out of 0, 1, 2, got {axes}.")

    def compute_transfer_function(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        """The weight of each k-space sample.

        Args:
            k: for each of ``axes``, the absolute frequency, 0 to N / 2, in cycles per field of view. The shapes
                broadcast against each other.
            sizes: the number of samples N of each of ``axes``.

        Returns:
            Weights that broadcast against k-space.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement weights(*k, sizes=...).")

    def _degrade(self, hr: Tensor) -> Tensor:
        dims = [axis - SPATIAL_DIMS for axis in self.axes]
        sizes = [hr.shape[dim] for dim in dims]
        k_space = torch.fft.rfftn(hr, dim=dims)
        k = []
        for dim, size in zip(dims, sizes, strict=True):
            # rfftn keeps only half of the last transformed axis.
            frequencies = torch.fft.rfftfreq if dim == dims[-1] else torch.fft.fftfreq
            shape = [1] * SPATIAL_DIMS
            shape[dim] = -1
            k.append(frequencies(size, 1.0 / size, device=hr.device, dtype=hr.dtype).abs().round().reshape(shape))
        return torch.fft.irfftn(
            k_space * self.compute_transfer_function(*k, sizes=sizes).to(hr.dtype), s=sizes, dim=dims
        )

    def _adjoint(self, lr: Tensor) -> Tensor:
        return self._degrade(lr)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class BandLimit(KSpaceFilter):
    r"""Keep the frequencies that an LR scan samples, without sampling.

    .. math:: w(k) = 1 \text{ where } |k_a| < N_a / (2 f_a), \quad 1/2 \text{ where equal, else } 0

    Sampling the result at every ``factor``-th voxel equals :class:`KSpaceTruncation`, from another first voxel that of
    a shifted volume. So one filtered volume gives truncated patches at every position and in every mirror image.

    Args:
        factors: HR voxels per LR voxel along each spatial axis; an axis of factor 1 does not change.
        along: whether each axis is limited.

    Example:
        >>> import torch
        >>> from common.degradations import BandLimit, KSpaceTruncation
        >>> hr = torch.rand(1, 12, 12, 6)
        >>> lr = BandLimit((2, 2, 1))(hr)[:, ::2, ::2]
        >>> torch.allclose(lr, KSpaceTruncation((2, 2, 1))(hr), atol=1e-6)
        True
    """

    def __init__(self, factors: Sequence[int], along: Sequence[bool] = (True, True, True)) -> None:
        super().__init__([axis for axis, factor in enumerate(factors) if factor > 1 and along[axis]])
        self.ratios = [factors[axis] for axis in self.axes]

    def compute_transfer_function(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        weights = k[0].new_ones(())
        for frequency, size, ratio in zip(k, sizes, self.ratios, strict=True):
            edge = size / (2 * ratio)
            weights = weights * ((frequency < edge).to(frequency) + (frequency <= edge).to(frequency)) / 2
        return weights


class EllipticalKSpace(KSpaceFilter):
    r"""Zero the corners of k-space outside the ellipse that touches the sampled extent.

    .. math:: w(k) = 1 \text{ where } \sum_a \left(\frac{k_a}{N_a / 2}\right)^2 \le 1, \text{ else } 0

    3-D protocols skip the corners of the two phase-encoding directions ("elliptical scanning"), which
    saves 21 % of the scan time. For an LR scan, put it after :class:`KSpaceTruncation` in :class:`ComposeDegradations`.

    Args:
        axes: the phase-encoding axes, two or three of 0, 1, 2. With the default, axis 2 is the readout. In RAS
            orientation this is head-feet, as in a sagittal MPRAGE.

    References:
        Bernstein et al., JMRI 2001; Liu et al. 2023, section II-A, lists it among the unknowns of clinical protocols.
    """

    def __init__(self, axes: Sequence[int] = (0, 1)) -> None:
        super().__init__(axes)
        if len(self.axes) < 2:
            raise ValueError(
                f"EllipticalKSpace: an ellipse needs two or three axes, got {axes}; along one axis nothing is cut off."
            )

    def compute_transfer_function(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        radius_squared: Any = sum((2.0 * frequency / size) ** 2 for frequency, size in zip(k, sizes, strict=True))
        # Rounding must not decide about samples on the ellipse.
        return radius_squared <= 1.0 + 8 * torch.finfo(radius_squared.dtype).eps


class HammingFilter(KSpaceFilter):
    r"""Weight k-space with a Hamming window, as scanners do against ringing.

    .. math:: w(k) = \prod_a \left(0.54 + 0.46 \cos\frac{2 \pi k_a}{N_a}\right)

    The weight is 1 at the centre of k-space and 0.08 at its edge, so edges get softer. For a low-resolution scan, put
    it after :class:`KSpaceTruncation` in :class:`ComposeDegradations`.

    Args:
        axes: the filtered axes, out of 0, 1, 2.

    References:
        Harris, Proceedings of the IEEE 66(1), 1978.
    """

    def __init__(self, axes: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__(axes)

    def compute_transfer_function(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        windows = (0.54 + 0.46 * torch.cos(2 * torch.pi * each / size) for each, size in zip(k, sizes, strict=True))
        return functools.reduce(torch.mul, windows)


class PartialFourier(KSpaceFilter):
    r"""Acquire a fraction of k-space along one axis, fill the rest with zeros, and take the real part.

    .. math:: A = \mathrm{Re}\left(F^{-1}\,\mathrm{diag}(s)\,F\right), \qquad
              s(k) = 1 \text{ for } -N/2 \le k < p N - N/2, \text{ else } 0

    Clinical protocols acquire 5/8 to 7/8 of the phase or slice encodings. A real object has a Hermitian k-space. So the
    real part of the zero-filled image equals an image with the k-space weights :math:`(s(k) + s(-k)) / 2`: frequencies
    acquired on one side lose half of their weight. This is a blur along ``axis``, linear and its own adjoint. Magnitude
    images also keep the imaginary part, which this module does not model.

    Args:
        fraction: acquired fraction of k-space, in (0.5, 1]; at 1 nothing changes. The number of encodings is rounded,
            and always includes the centre of k-space.
        axis: the spatial axis (0, 1, 2) of the partial encoding.

    Example:
        >>> import torch
        >>> from common.degradations import PartialFourier
        >>> impulse = torch.zeros(1, 16, 4, 4)
        >>> impulse[0, 8, 2, 2] = 1.0
        >>> PartialFourier(fraction=0.75, axis=0)(impulse)[0, 8, 2, 2]
        tensor(0.7500)

    References:
        Noll et al., IEEE TMI 1991; Liu et al. 2023, section II-A, lists it among the unknowns of clinical protocols.
    """

    def __init__(self, fraction: float, axis: int) -> None:
        super().__init__((axis,))
        if not 0.5 < fraction <= 1.0:
            raise ValueError(
                f"PartialFourier: fraction must be more than 0.5 and at most 1, got {fraction}. "
                "Half of k-space or less does not determine an image."
            )
        self.fraction, self.axis = float(fraction), axis

    def compute_transfer_function(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        (frequency,), (size,) = k, sizes
        encodings = max(round(self.fraction * size), size // 2 + 1)
        both_sides = frequency <= encodings - size // 2 - 1
        # -N/2 is its own partner on an even grid, so it keeps its full weight.
        own_partner = 2 * frequency == size
        return torch.where(both_sides | own_partner, 1.0, 0.5)

    def extra_repr(self) -> str:
        return f"fraction={self.fraction}, axis={self.axis}"
