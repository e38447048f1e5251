"""The enhanced deep super-resolution network."""

from __future__ import annotations

import torch
from torch import nn

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
        """``(B, features, H, W)`` to the same."""
        return x + self.body(x)


class EDSR(nn.Module):
    """EDSR, the baseline form of Lim et al. 2017, as Huang et al. 2021, section 2.B, use it, for single slices.

    With 16 blocks, 64 features, a factor of 2 and one channel it has 1,367,553 parameters.

    Args:
        features: channels.
        blocks: residual blocks.
        factor: of the super-resolution in plane, by a pixel shuffle.
        base: maps an LR slice to an HR one without parameters, and the network learns what it misses, beginning with
            nothing; None for the paper's form, which learns all of the image.
    """

    def __init__(self, features: int = 64, blocks: int = 16, factor: int = 2, base: nn.Module | None = None) -> None:
        super().__init__()
        self.base = base
        self.head = nn.Conv2d(1, features, 3, padding=1)
        body = [ResidualBlock(features) for _ in range(blocks)]
        self.body = nn.Sequential(*body, nn.Conv2d(features, features, 3, padding=1))
        self.tail = nn.Sequential(
            nn.Conv2d(features, factor**2 * features, 3, padding=1),
            nn.PixelShuffle(factor),
            nn.Conv2d(features, 1, 3, padding=1),
        )
        if base is not None:
            nn.init.zeros_(self.tail[-1].weight)
            nn.init.zeros_(self.tail[-1].bias)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, factor H, factor W, 1)``."""
        features = self.head(slab_to_channels(lr))
        sr = channels_to_slab(self.tail(features + self.body(features)))
        if self.base is not None:
            sr = sr + self.base(lr)
        return sr
