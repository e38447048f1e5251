"""The slice between two others."""

from __future__ import annotations

import torch
from torch import nn

from ..values import is_true
from .edsr import ResidualBlock
from .float32 import FromImage, ToImage


class SliceBetween(nn.Module):
    """Residual blocks that predict the slice half-way between two (after Lu et al. 2021), with their mean at the start.

    Args:
        features: channels.
        blocks: residual blocks.
        residual: whether the mean of the two is added; else the network learns the whole slice.
    """

    def __init__(self, features: int = 64, blocks: int = 16, residual: bool | str = True) -> None:
        super().__init__()
        self.residual = is_true(residual, "residual")
        self.sizes = {"features": features, "blocks": blocks, "residual": self.residual}
        body = [ResidualBlock(features) for _ in range(blocks)]
        tail = (nn.Conv2d if self.residual else ToImage)(features, 1, 3, padding=1)
        self.body = nn.Sequential(FromImage(2, features, 3, padding=1), *body, tail)
        if self.residual:
            for parameter in tail.parameters():
                nn.init.zeros_(parameter)

    def forward(self, sides: torch.Tensor) -> torch.Tensor:
        """Two slices ``(B, 2, H, W)`` to the slice between them, ``(B, 1, H, W)``."""
        between = self.body(sides)
        return between + sides.mean(dim=1, keepdim=True) if self.residual else between
