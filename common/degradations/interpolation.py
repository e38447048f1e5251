"""What a degradation leaves of a volume, interpolated onto the HR grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..physics.scale import zero_shot
from ..physics.spline import apply_along, upsampling_matrix
from .base import Degradation


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


class ZeroShotImages(Interpolated):
    """What is left of images of a scan from which a network learns to make that scan finer.

    Args:
        degradation: from HR to the scan.
        of_images: from an image, a layer ``(1, H, W)``, to a coarser one; default the like of ``degradation``.
        scales: sizes, of at most 1, to which images are brought before.

    Attributes:
        planes: axes of the scan across which lie the images that teach.

    Raises:
        ValueError: for factors other than [n, n, n], [n, n, 1] and [1, 1, n].
    """

    def __init__(
        self,
        degradation: Degradation,
        of_images: Degradation | None = None,
        scales: Sequence[float] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    ) -> None:
        lesson = zero_shot(scale=list(degradation.factors))
        factors = lesson["of_images"]
        if of_images is None:
            # That across slices is the scan's own, with all that was set of it.
            of_images = degradation if list(degradation.factors) == factors else type(degradation)(factors)
        super().__init__(of_images)
        self.planes, self.scales = lesson["taught_by"], tuple(scales)
