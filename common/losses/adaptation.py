"""The degradation adaptation loss."""

from __future__ import annotations

import torch
from torch import nn


class AdaptationLoss(nn.Module):
    """Mean distance of verdicts from undecided, ``mean |D - target|`` (one term of Liu et al. 2023, eq. 8 and 9).

    Args:
        target: the verdict of a discriminator that cannot tell the domains apart.
    """

    def __init__(self, target: float = 0.5) -> None:
        super().__init__()
        self.target = target

    def forward(self, verdict: torch.Tensor) -> torch.Tensor:
        """Verdicts of any shape to a scalar."""
        return (verdict - self.target).abs().mean()
