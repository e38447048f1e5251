"""The wide-activation super-resolution network, along one axis and by any factor."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..degradations.base import Degradation
from .float32 import FromImage, make_last_layer
from .interpolation import AxisInterpolation, AxisResampling

_WIDER = 4  # channels before ReLU, per channel of the block; 6 in Yu et al. 2018
_LOW_RANK = 0.8  # channels between the two linear convolutions, per channel of the block


class NormalizedConvolution(nn.Conv2d):
    r"""A convolution with weight normalisation: each output channel has the weights :math:`g\,v / \lVert v\rVert`.

    At the start g is the norm of v. Unlike torch's parametrisation, it can be exported as TorchScript.

    Source:
        Salimans and Kingma, Weight normalization, NeurIPS 2016, eq. 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.gain = nn.Parameter(self._compute_norms().detach())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        return self._conv_forward(input, self.weight * (self.gain / self._compute_norms()), self.bias)

    def _compute_norms(self) -> torch.Tensor:
        return self.weight.square().sum(dim=[1, 2, 3], keepdim=True).sqrt()


class WideBlock(nn.Module):
    """Many channels before ReLU, then a 3x3 convolution of low rank, added to the input (Yu et al. 2018, fig. 2, B)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        wide, narrow = _WIDER * features, max(1, int(_LOW_RANK * features))
        self.body = nn.Sequential(
            NormalizedConvolution(features, wide, 1),
            nn.ReLU(inplace=True),
            NormalizedConvolution(wide, narrow, 1),
            NormalizedConvolution(narrow, features, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class WDSR(nn.Module):
    """WDSR that makes images finer along their last axis by any factor, as ECLARE uses it.

    The last convolution gives ceil(factor) columns for each LR column, by a pixel shuffle along one axis. If the factor
    is not whole, these columns are resampled by cubic convolution at the positions of the HR columns. The result is
    added to the cubic interpolation of the LR image. It is 0 at the start, so an untrained network interpolates.

    With the default sizes, those of ECLARE, and a factor of 4 it has 15,116,164 parameters.

    Args:
        degradation: from HR to LR, along the last axis. It gives the factor and the positions of LR columns.
        features: channels of the trunk.
        blocks: wide blocks.

    Source:
        Yu et al., Wide activation for efficient and accurate image super-resolution, arXiv 1808.08718, 2018; Remedios
        et al. 2025 (ECLARE), for the sizes and the factors that are not whole.
    """

    def __init__(self, degradation: Degradation, features: int = 256, blocks: int = 16) -> None:
        super().__init__()
        factor, offset = degradation.factors[2], degradation.offset[2]
        columns = math.ceil(factor)
        self.sizes = {"features": features, "blocks": blocks}
        self.base: nn.Module = AxisInterpolation(columns, offset)
        self.resampling: nn.Module = nn.Identity()
        if columns != factor:
            self.base = AxisResampling(factor, offset)
            self.resampling = AxisResampling(factor, offset, columns)
        self.head = FromImage(1, features, 3, padding=1)
        self.blocks = nn.Sequential(*(WideBlock(features) for _ in range(blocks)))
        self.tail = make_last_layer(True, features, columns, 3, padding=1)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, 1, H, factor W)``, rounded."""
        columns = self.tail(self.blocks(self.head(lr)))
        detail = columns.permute(0, 2, 3, 1).flatten(2).unsqueeze(1)
        return self.base(lr) + self.resampling(detail)
