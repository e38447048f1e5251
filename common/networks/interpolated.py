"""Networks that improve an interpolated slice; the result has the same size."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations import Degradation
from ..physics.scale import in_plane
from ..values import is_true
from .interpolation import SlabInterpolation
from .slab import channels_to_slab, slab_to_channels


class OnInterpolated(nn.Module):
    """Apply a 2-D network to an LR slice that is interpolated onto the HR grid.

    Args:
        body: maps ``(B, 1, H, W)`` to the same shape; its last convolution gives the result.
        degradation: from HR to LR. It gives the factors in plane and the positions of LR pixels.
        residual: whether the body learns the difference from the interpolation, with 0 at the start; if False, it
            learns the whole image.

    Raises:
        ValueError: if the degradation does not act in plane only.
    """

    def __init__(self, body: nn.Module, degradation: Degradation, residual: bool | str = True) -> None:
        super().__init__()
        in_plane(scale=list(degradation.factors))
        self.interpolation = SlabInterpolation(1, degradation.factors, degradation.offset)
        self.body, self.residual = body, is_true(residual, "residual")
        self.sizes = {**getattr(body, "sizes", {}), "residual": self.residual}
        if self.residual:
            last = [module for module in body.modules() if isinstance(module, nn.Conv2d)][-1]
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, s H, s W, 1)``."""
        base = self.interpolation(lr)
        sr = channels_to_slab(self.body(slab_to_channels(base)))
        return base + sr if self.residual else sr
