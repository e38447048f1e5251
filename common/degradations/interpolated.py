"""What a degradation leaves of a volume, interpolated onto the HR grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..physics.spline import apply_along, upsampling_matrix
from .base import Degradation

__all__ = ["Interpolated", "interpolated"]


def interpolated(lr: Tensor, degradation: Degradation, size: Sequence[int] | None = None) -> Tensor:
    """Interpolate an LR volume onto the HR grid by a cubic spline, each HR voxel at its own position.

    Args:
        lr: ``(..., X, Y, Z)``.
        degradation: from HR to LR; its factors need not be whole.
        size: voxels of the HR grid along the three axes; default ``degradation.hr_size``.

    Returns:
        ``(..., *size)``.
    """
    sizes = size or degradation.hr_size(lr.shape[-3:])
    axes = zip(lr.shape[-3:], sizes, degradation.factors, degradation.offset, strict=True)
    return apply_along(lr, [None if f == 1 else upsampling_matrix(n, hr, f, o) for n, hr, f, o in axes])


class Interpolated(nn.Module):
    """Degrade an HR volume, and interpolate what is left of it onto its own grid by a cubic spline.

    Networks that begin where interpolation ends are trained on this.

    Args:
        degradation: what happens to the volume; where a factor is not whole, LR sizes are rounded.

    Attributes:
        factors: 1 along each axis, as the grid stays.

    Example:
        >>> import torch
        >>> from common.degradations import GaussianProfile, Interpolated
        >>> Interpolated(GaussianProfile((1, 1, 2.5)))(torch.rand(1, 8, 8, 24)).shape
        torch.Size([1, 8, 8, 24])
    """

    factors = (1, 1, 1)

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.degradation = degradation

    def forward(self, hr: Tensor) -> Tensor:
        """``(..., X, Y, Z)`` to the same size."""
        return interpolated(self.degradation(hr), self.degradation, hr.shape[-3:])
