"""The residual dense network, with an upsampler along one axis (Zhang et al. 2018)."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations import Degradation
from ..values import is_true
from .float32 import FromImage, image_layer
from .interpolation import AxisInterpolation


class ResidualDenseBlock(nn.Module):
    """Densely connected 3x3 convolutions with ReLU, fused and added to the input (Zhang et al. 2018, fig. 3)."""

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(features + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fusion = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dense = x
        for layer in self.layers:
            dense = torch.cat([dense, torch.relu(layer(dense))], dim=1)
        return x + self.fusion(dense)


class RDN(nn.Module):
    """Residual dense network that makes images finer along their last axis (Wang et al. 2023, section 2.1).

    With the default sizes and one channel, it has 21,972,800 parameters without the upsampler and the last convolution.

    Args:
        degradation: from HR to LR, along the last axis. It gives the factor and the positions of LR columns. One
            convolution computes the channels of all new columns.
        features: channels of the trunk.
        growth: channels that each layer of a block adds.
        blocks: residual dense blocks.
        layers: densely connected layers in each block.
        residual: whether the network learns the difference from cubic interpolation, with 0 at the start; False in the
            paper.
    """

    def __init__(
        self,
        degradation: Degradation,
        features: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
        residual: bool | str = True,
    ) -> None:
        super().__init__()
        self.factor = factor = degradation.factors[2]
        self.base = AxisInterpolation(factor, degradation.offset[2]) if is_true(residual, "residual") else None
        self.sizes = {"features": features, "growth": growth, "blocks": blocks, "layers": layers}
        self.sizes["residual"] = self.base is not None
        self.shallow = FromImage(1, features, 3, padding=1)
        self.head = nn.Conv2d(features, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth, layers) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * features, features, 1), nn.Conv2d(features, features, 3, padding=1)
        )
        self.upsampler = nn.Conv2d(features, factor * features, 3, padding=1)
        self.tail = image_layer(self.base is not None, features, 1, 3, padding=1)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, 1, H, factor W)``."""
        shallow = self.shallow(lr)
        x = self.head(shallow)
        outputs: list[torch.Tensor] = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.upsampler(shallow + self.fusion(torch.cat(outputs, dim=1)))
        batch, _, height, width = x.shape
        # Channels k * features to (k + 1) * features of column w give column factor * w + k of the result.
        x = x.reshape(batch, self.factor, -1, height, width).permute(0, 2, 3, 4, 1)
        sr = self.tail(x.reshape(batch, -1, height, width * self.factor))
        if self.base is not None:
            sr = sr + self.base(lr)
        return sr
