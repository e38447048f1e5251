"""An error with a weight per pixel."""

from __future__ import annotations

import torch
from torch import nn


class WeightedL1Loss(nn.Module):
    """``mean w |x - y|``, each pixel with a weight (Wei et al. 2021)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` and weights that broadcast to them, to a scalar."""
        return (weights * (x - y).abs()).mean()
