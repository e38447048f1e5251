"""The downsampling network that is trained pixel by pixel."""

from __future__ import annotations

import torch
from torch import nn

from .edsr import ResidualBlock
from .float32 import FromImage, ToImage
from .slab import channels_to_slab, slab_to_channels


class DownsamplingNetwork(nn.Module):
    """A fully convolutional network from HR slices to LR ones, as free as networks are (after Chun et al. 2019).

    A 3x3 convolution, residual blocks at the HR resolution, a convolution of ``factor`` x ``factor`` with that stride,
    which lies on the HR voxels of each LR voxel, and a 3x3 convolution to the image. What the original's sizes are is
    not known here.

    Args:
        features: channels.
        blocks: residual blocks.
        factor: by which LR is coarser in plane.
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
