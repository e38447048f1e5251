"""Networks that begin where interpolation ends: from an interpolated slice to a better one of the same size."""

from __future__ import annotations

import torch
from torch import nn

from ..override_checks import is_true
from .slab import channels_to_slab, slab_to_channels


class OnInterpolated(nn.Module):
    """A 2-D network on an LR slice that has been interpolated onto the HR grid.

    Args:
        interpolation: maps an LR slice to the HR grid; without parameters.
        body: maps ``(B, 1, H, W)`` to the same; its last convolution gives the result.
        residual: whether the body learns what the interpolation misses, beginning with nothing; False where it learns
            all of the image.
    """

    def __init__(self, interpolation: nn.Module, body: nn.Module, residual: bool | str) -> None:
        super().__init__()
        self.interpolation, self.body, self.residual = interpolation, body, is_true(residual, "residual")
        if self.residual:
            last = [module for module in body.modules() if isinstance(module, nn.Conv2d)][-1]
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, s H, s W, 1)``."""
        base = self.interpolation(lr)
        sr = channels_to_slab(self.body(slab_to_channels(base)))
        return base + sr if self.residual else sr
