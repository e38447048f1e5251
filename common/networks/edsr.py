"""The enhanced deep super-resolution network, and networks of its residual blocks."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations.base import Degradation
from ..physics.scale import get_in_plane_number
from .float32 import FromImage, ToImage, make_last_layer
from .interpolation import SlabInterpolation
from .slab import channels_to_slab, slab_to_channels


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with ReLU between, added to their input; no batch norm (Lim et al. 2017, fig. 2c)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class EDSR(nn.Module):
    """EDSR for single slices: the baseline of Lim et al. 2017, as used by Huang et al. 2021, section 2.B.

    With 16 blocks, 64 features, a factor of 2 and one channel it has 1,367,553 parameters.

    Args:
        features: channels.
        blocks: residual blocks.
        degradation: from HR to LR, in plane only. It gives the factor of the pixel shuffle and the positions of LR
            pixels. None for slices that are as fine as the result.
        residual: whether the network learns the difference from the interpolated slice, with 0 at the start; False in
            the paper.
    """

    def __init__(
        self, features: int = 64, blocks: int = 16, degradation: Degradation | None = None, residual: bool = True
    ) -> None:
        super().__init__()
        factor = 1
        base: nn.Module = nn.Identity()
        if degradation is not None:
            factor = get_in_plane_number(scale=list(degradation.factors))
            base = SlabInterpolation(1, degradation.factors, degradation.offset)
        self.base = base if residual else None
        self.sizes = {"features": features, "blocks": blocks, "residual": self.base is not None}
        self.head = FromImage(1, features, 3, padding=1)
        body = [ResidualBlock(features) for _ in range(blocks)]
        self.body = nn.Sequential(*body, nn.Conv2d(features, features, 3, padding=1))
        self.tail = nn.Sequential(
            nn.Conv2d(features, factor**2 * features, 3, padding=1),
            nn.PixelShuffle(factor),
            make_last_layer(self.base is not None, features, 1, 3, padding=1),
        )

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, factor H, factor W, 1)``."""
        features = self.head(slab_to_channels(lr))
        sr = channels_to_slab(self.tail(features + self.body(features)))
        if self.base is not None:
            sr = sr + self.base(lr)
        return sr


class DownsamplingNetwork(nn.Module):
    """A fully convolutional network from HR to LR slices, without constraints (after Chun et al. 2019).

    It has a 3x3 convolution and residual blocks at the HR resolution. A convolution of ``factor`` x ``factor`` with
    that stride follows, which covers the HR voxels of each LR voxel. A 3x3 convolution gives the image. The sizes of
    the original network are not known.

    Args:
        features: channels.
        blocks: residual blocks.
        factor: HR pixels per LR pixel in plane.
    """

    def __init__(self, features: int = 64, blocks: int = 4, factor: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            FromImage(1, features, 3, padding=1),
            nn.ReLU(inplace=True),
            *(ResidualBlock(features) for _ in range(blocks)),
            nn.Conv2d(features, features, factor, stride=factor),
            nn.ReLU(inplace=True),
            ToImage(features, 1, 3, padding=1),
        )

    def forward(self, hr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, factor H, factor W, 1)`` to ``(B, 1, H, W, 1)``."""
        return channels_to_slab(self.body(slab_to_channels(hr)))


class SliceBetween(nn.Module):
    """Residual blocks that predict the slice half-way between two (after Lu et al. 2021), with their mean at the start.

    Args:
        features: channels.
        blocks: residual blocks.
        residual: whether the mean of the two is added; else the network learns the whole slice.
    """

    def __init__(self, features: int = 64, blocks: int = 16, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.sizes = {"features": features, "blocks": blocks, "residual": self.residual}
        body = [ResidualBlock(features) for _ in range(blocks)]
        tail = make_last_layer(self.residual, features, 1, 3, padding=1)
        self.body = nn.Sequential(FromImage(2, features, 3, padding=1), *body, tail)

    def forward(self, sides: torch.Tensor) -> torch.Tensor:
        """Two slices ``(B, 2, H, W)`` to the slice between them, ``(B, 1, H, W)``."""
        between = self.body(sides)
        return between + sides.mean(dim=1, keepdim=True) if self.residual else between
