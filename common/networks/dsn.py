"""A downsampling network for a pixel-wise loss."""

from __future__ import annotations

import torch
from torch import nn

from .edsr import ResidualBlock
from .float32 import FromImage, ToImage
from .slab import channels_to_slab, slab_to_channels


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
