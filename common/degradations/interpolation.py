"""Degraded volumes, interpolated onto the HR grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..geometry.spline import apply_along_axes, make_upsampling_matrix
from ..physics.scale import choose_zero_shot_images
from .base import Degradation
from .fitted_profile import FittedProfile
from .profiles import GaussianProfile


def interpolate(lr: Tensor, degradation: Degradation, size: Sequence[int] | None = None) -> Tensor:
    """Interpolate an LR volume onto the HR grid by a cubic spline, each HR voxel at its own position.

    Args:
        lr: ``(..., X, Y, Z)``.
        degradation: from HR to LR; its factors need not be whole.
        size: voxels of the HR grid along the three axes; default ``degradation.hr_size``.

    Returns:
        ``(..., *size)``.
    """
    sizes = size or degradation.compute_hr_size(lr.shape[-3:])
    axes = zip(lr.shape[-3:], sizes, degradation.factors, degradation.offset, strict=True)
    return apply_along_axes(lr, [None if f == 1 else make_upsampling_matrix(n, hr, f, o) for n, hr, f, o in axes])


class DegradeAndInterpolate(nn.Module):
    """Degrade an HR volume, and interpolate the result onto the HR grid by a cubic spline.

    Networks that improve interpolated volumes are trained on this.

    Args:
        degradation: from HR to LR; if a factor is not whole, LR sizes are rounded. A
            :class:`~common.degradations.FittedProfile` must be fitted to a scan first.
    """

    factors = (1, 1, 1)  # the grid does not change
    degradation: Degradation

    def __init__(self, degradation: Degradation | FittedProfile) -> None:
        super().__init__()
        self.degradation = degradation  # type: ignore[assignment]

    def forward(self, hr: Tensor) -> Tensor:
        """``(..., X, Y, Z)`` to the same size."""
        return interpolate(self.degradation(hr), self.degradation, hr.shape[-3:])

    def blur(self, hr: Tensor) -> Tensor:
        """Blur ``(..., X, Y, Z)`` as the degradation does, without its aliasing."""
        if not isinstance(self.degradation, GaussianProfile):
            raise TypeError(
                f"self-anti-aliasing needs a blur without aliasing, which {type(self.degradation).__name__} does not "
                "give; use GaussianProfile, or set self_anti_aliasing false."
            )
        return self.degradation.blur(hr)


class DegradeImages(DegradeAndInterpolate):
    """Degrade images of a scan for zero-shot training, which learns from the scan to super-resolve it.

    Args:
        degradation: from HR to the scan.
        scales: relative sizes, at most 1, to which images are resized first.

    Attributes:
        planes: axes of the scan; the training images lie across them.
    """

    def __init__(self, degradation: Degradation, scales: Sequence[float] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)) -> None:
        _, self.planes, factors = choose_zero_shot_images(list(degradation.factors))
        # Across slices, use the scan's own degradation with all its options.
        super().__init__(degradation if list(degradation.factors) == factors else type(degradation)(factors))
        self.scales = tuple(scales)
