"""The first convolutional network for super-resolution."""

from collections.abc import Sequence

import torch
from torch import nn

from ..command_line import is_true
from .slab import channels_to_slab, slab_to_channels


class SRCNN(nn.Module):
    """Three convolutions on an LR slice that has been interpolated (Dong et al. 2016, section 3.1).

    Args:
        interpolation: maps an LR slice to the HR grid; without parameters.
        kernels: edges of the three kernels, odd.
        features: channels after the first convolution, and after the second.
        residual: whether the network learns what the interpolation misses, beginning with nothing; False for the
            paper's form, which learns all of the image.
    """

    def __init__(
        self, interpolation: nn.Module, kernels: Sequence[int], features: Sequence[int], residual: bool | str
    ) -> None:
        super().__init__()
        self.interpolation, self.residual = interpolation, is_true(residual)
        widths = [1, *features, 1]
        layers = [
            nn.Conv2d(*widths[i : i + 2], k, padding=k // 2, padding_mode="replicate") for i, k in enumerate(kernels)
        ]
        self.body = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        if self.residual:
            nn.init.zeros_(layers[2].weight)
            nn.init.zeros_(layers[2].bias)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, s H, s W, 1)``."""
        base = self.interpolation(lr)
        sr = channels_to_slab(self.body(slab_to_channels(base)))
        return base + sr if self.residual else sr
