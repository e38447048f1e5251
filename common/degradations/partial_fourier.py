"""Partial Fourier: a little more than half of k-space is acquired along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .k_space_filter import KSpaceFilter


class PartialFourier(KSpaceFilter):
    r"""Acquire a fraction of k-space along one axis, fill the rest with zeros, and take the real part.

    .. math:: A = \mathrm{Re}\left(F^{-1}\,\mathrm{diag}(s)\,F\right), \qquad
              s(k) = 1 \text{ for } -N/2 \le k < p N - N/2, \text{ else } 0

    Clinical protocols acquire 5/8 to 7/8 of the phase or slice encodings. A real object has a Hermitian k-space. So the
    real part of the zero-filled image equals an image with the k-space weights :math:`(s(k) + s(-k)) / 2`. Frequencies
    that are acquired on both sides keep their weight; frequencies acquired on one side lose half of it. This is a blur
    along ``axis``, linear and its own adjoint. It models a scan whose smooth phase is removed before the real part is
    taken, as in homodyne reconstruction. The ramp filter of that method, which restores the weights of an object of
    known phase, is left out. Magnitude images also keep the imaginary part, an edge signal that adds in quadrature.
    They are not linear, and this module does not model them.

    Args:
        fraction: acquired fraction of k-space, in (0.5, 1]; at 1 nothing changes. The number of encodings is rounded,
            and always includes the centre of k-space.
        axis: the spatial axis (0, 1, 2) of the partial encoding.

    Raises:
        ValueError: if ``fraction`` is out of its range, or ``axis`` is not a spatial axis.

    Example:
        >>> import torch
        >>> from common.degradations import PartialFourier
        >>> impulse = torch.zeros(1, 16, 4, 4)
        >>> impulse[0, 8, 2, 2] = 1.0
        >>> PartialFourier(fraction=0.75, axis=0)(impulse)[0, 8, 2, 2]
        tensor(0.7500)

    References:
        Noll, Nishimura and Macovski, Homodyne detection in magnetic resonance imaging, IEEE TMI 1991.
        Liu et al. 2023, section II-A, lists it among the unknowns of clinical protocols.
    """

    def __init__(self, fraction: float, axis: int) -> None:
        super().__init__((axis,))
        if not 0.5 < fraction <= 1.0:
            raise ValueError(
                f"PartialFourier: fraction must be more than 0.5 and at most 1, got {fraction}. "
                "Half of k-space or less does not determine an image."
            )
        self.fraction = float(fraction)

    def weights(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        (frequency,), (size,) = k, sizes
        encodings = max(round(self.fraction * size), size // 2 + 1)
        both_sides = frequency <= encodings - size // 2 - 1
        # -N/2 is its own partner on an even grid, so it keeps its full weight.
        own_partner = 2 * frequency == size
        return torch.where(both_sides | own_partner, 1.0, 0.5)

    def extra_repr(self) -> str:
        return f"fraction={self.fraction}, axis={self.axes[0]}"
