"""Densely connected networks for super-resolution, with one block (DCSRN) and with several (mDCSRN)."""

from __future__ import annotations

import torch
from torch import nn

from .float32 import FromImage, ToImage


class DenseUnit(nn.Module):
    """Batch norm, ELU and a 3x3 convolution, concatenated to the input (Chen et al. 2018, ISBI, section 2.2)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(inputs), nn.ELU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def dense_block(growth: int, units: int) -> nn.Sequential:
    """Dense units in sequence, from ``2 growth`` channels to ``(2 + units) growth``."""
    return nn.Sequential(*(DenseUnit((2 + i) * growth, growth) for i in range(units)))


class DCSRN(nn.Sequential):
    """One densely connected block between two 3x3 convolutions (Chen et al. 2018, ISBI, fig. 2, in 2-D).

    Args:
        growth: channels that each unit adds; the first convolution has twice as many.
        units: number of units in the block.
    """

    def __init__(self, growth: int = 24, units: int = 4) -> None:
        super().__init__(
            FromImage(1, 2 * growth, 3, padding=1),
            dense_block(growth, units),
            ToImage((2 + units) * growth, 1, 3, padding=1),
        )
        self.sizes = {"growth": growth, "units": units}


class MDCSRN(nn.Module):
    """Several densely connected blocks, each of which sees all before it (Chen et al. 2018, MICCAI, fig. 1, in 2-D).

    The output of each block is concatenated to the outputs of all earlier blocks. A 1x1 convolution reduces them to the
    input of the next block; the last one gives the image.

    Args:
        growth: channels that each unit adds; a block's input has twice as many.
        blocks: number of blocks.
        units: number of units in each block.
    """

    def __init__(self, growth: int = 16, blocks: int = 4, units: int = 4) -> None:
        super().__init__()
        self.head = FromImage(1, 2 * growth, 3, padding=1)
        self.blocks = nn.ModuleList(dense_block(growth, units) for _ in range(blocks))
        # The first block's output is joined to its input, and begins with that input.
        joined = [(2 + (2 + units) * (i + 1)) * growth for i in range(blocks)]
        self.compressors = nn.ModuleList(nn.Conv2d(n, 2 * growth, 1) for n in joined[:-1])
        self.tail = ToImage(joined[-1], 1, 1)
        self.sizes = {"growth": growth, "blocks": blocks, "units": units}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to the same shape."""
        x = self.head(x)
        joined = x
        for i, block in enumerate(self.blocks):
            joined = torch.cat([joined, block(x)], dim=1)
            for k, compressor in enumerate(self.compressors):  # a scripted module list takes no index
                if k == i:
                    x = compressor(joined)
        return self.tail(joined)
