"""The extent of an LR scan's k-space, on the HR grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..values import is_true
from .base import KSpaceFilter


class BandLimit(KSpaceFilter):
    r"""Keep the frequencies that an LR scan samples, without sampling.

    .. math:: w(k) = 1 \text{ where } |k_a| < N_a / (2 f_a), \quad 1/2 \text{ where equal, else } 0

    Sampling the result at every ``factor``-th voxel equals :class:`KSpaceTruncation`. Sampling from another first voxel
    equals the truncation of a shifted volume. So one filtered volume gives truncated patches at every position and in
    every mirror image. A single patch cannot give them, because its ringing comes from beyond its borders.

    Args:
        factors: HR voxels per LR voxel along each spatial axis; an axis of factor 1 does not change.
        along: whether each axis is limited; default all.

    Raises:
        ValueError: if no factor of these axes is larger than 1.

    Example:
        >>> import torch
        >>> from common.degradations import BandLimit, KSpaceTruncation
        >>> hr = torch.rand(1, 12, 12, 6)
        >>> lr = BandLimit((2, 2, 1))(hr)[:, ::2, ::2]
        >>> torch.allclose(lr, KSpaceTruncation((2, 2, 1))(hr), atol=1e-6)
        True
    """

    def __init__(self, factors: Sequence[int], along: Sequence[bool | str] = (True, True, True)) -> None:
        limited = [is_true(each, "along") for each in along]
        super().__init__([axis for axis, factor in enumerate(factors) if factor > 1 and limited[axis]])
        self.ratios = [factors[axis] for axis in self.axes]

    def weights(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        weights = k[0].new_ones(())
        for frequency, size, ratio in zip(k, sizes, self.ratios, strict=True):
            edge = size / (2 * ratio)
            weights = weights * ((frequency < edge).to(frequency) + (frequency <= edge).to(frequency)) / 2
        return weights
