"""Networks that begin where interpolation ends: from an interpolated slice to a better one of the same size."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations import Degradation
from ..physics.scale import in_plane
from ..values import is_true
from .interpolation import SlabInterpolation
from .slab import channels_to_slab, slab_to_channels


class OnInterpolated(nn.Module):
    """A 2-D network on an LR slice that has been interpolated onto the HR grid.

    Args:
        body: maps ``(B, 1, H, W)`` to the same; its last convolution gives the result.
        degradation: from HR to LR: which factors it has in plane, and where LR pixels lie.
        residual: whether the body learns what the interpolation misses, beginning with nothing; False where it learns
            all of the image.

    Raises:
        ValueError: for a degradation that does not act in plane alone.
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
