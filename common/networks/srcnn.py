"""The first convolutional network for super-resolution."""

import torch
from torch import nn

from ..command_line import is_true
from .slab import channels_to_slab, slab_to_channels


class SRCNN(nn.Module):
    """Convolutions with ReLU between on an LR slice that has been interpolated (Dong et al. 2016, section 3.1).

    Args:
        interpolation: maps an LR slice to the HR grid; without parameters.
        kernels: edges of the convolutions' kernels, odd.
        features: channels after each convolution but the last, so one number less.
        residual: whether the network learns what the interpolation misses, beginning with nothing; False for the
            paper's form, which learns all of the image.
    """

    def __init__(self, interpolation: nn.Module, kernels: list[int], features: list[int], residual: bool | str):
        super().__init__()
        if len(kernels) != len(features) + 1:
            raise ValueError(f"kernels is {kernels}, expected one number more than features, {features}.")
        self.interpolation, self.residual, self.body = interpolation, is_true(residual, "residual"), nn.Sequential()
        for size, a, b in zip(kernels, [1, *features], [*features, 1], strict=True):
            self.body.extend([nn.Conv2d(a, b, size, padding=size // 2, padding_mode="replicate"), nn.ReLU()])
        self.body.pop(-1)
        if self.residual:
            nn.init.zeros_(self.body[-1].weight)
            nn.init.zeros_(self.body[-1].bias)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, s H, s W, 1)``."""
        base = self.interpolation(lr)
        sr = channels_to_slab(self.body(slab_to_channels(base)))
        return base + sr if self.residual else sr
