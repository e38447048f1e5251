"""Elliptical k-space: the corners of k-space are not acquired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .k_space_filter import KSpaceFilter


class EllipticalKSpace(KSpaceFilter):
    r"""Zero the corners of k-space outside the ellipse that touches the sampled extent.

    .. math:: w(k) = 1 \text{ where } \sum_a \left(\frac{k_a}{N_a / 2}\right)^2 \le 1, \text{ else } 0

    3-D protocols skip the corners of the two phase-encoding directions ("elliptical scanning", "k-space shutter"). This
    saves about 21 % (1 - pi / 4) of the scan time. Resolution falls along the diagonals, but not along the axes. The
    grid does not change. For a low-resolution scan with elliptical k-space, put it after :class:`KSpaceTruncation` in
    :class:`ComposeDegradations`. The operator is an orthogonal projection, hence its own adjoint.

    Args:
        axes: the phase-encoding axes, two or three of 0, 1, 2. With the default, axis 2 is the readout. In RAS
            orientation this is head-feet, as in a sagittal MPRAGE.

    Example:
        >>> import torch
        >>> from common.degradations import ComposeDegradations, EllipticalKSpace, KSpaceTruncation
        >>> scan = ComposeDegradations([KSpaceTruncation((2, 2, 2)), EllipticalKSpace()])
        >>> scan(torch.rand(1, 16, 16, 16)).shape
        torch.Size([1, 8, 8, 8])

    References:
        Bernstein, Fain and Riederer, Effect of windowing and zero-filled reconstruction of MRI data on spatial
        resolution and acquisition strategy, JMRI 2001.
        Liu et al. 2023, section II-A, lists it among the unknowns of clinical protocols.
    """

    def __init__(self, axes: Sequence[int] = (0, 1)) -> None:
        super().__init__(axes)
        if len(self.axes) < 2:
            raise ValueError(
                f"EllipticalKSpace: an ellipse needs two or three axes, got {axes}; along one axis nothing is cut off."
            )

    def weights(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        radius_squared: Any = sum((2.0 * frequency / size) ** 2 for frequency, size in zip(k, sizes, strict=True))
        # Rounding must not decide about samples on the ellipse.
        return radius_squared <= 1.0 + 8 * torch.finfo(radius_squared.dtype).eps
