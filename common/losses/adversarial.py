"""What is asked of a discriminator's verdict: by the discriminator itself, and by who is judged."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class LeastSquaresLoss(nn.Module):
    """Mean squared distance of a verdict from one target (Mao et al. 2017; Liu et al. 2023, eq. 4, 11 and 12).

    Args:
        target: the verdict to be reached, 1 for real and 0 for generated.
    """

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def forward(self, verdict: torch.Tensor) -> torch.Tensor:
        """A verdict of any shape to a scalar."""
        return F.mse_loss(verdict, torch.full_like(verdict, self.target))


class CrossEntropyLoss(nn.Module):
    """Binary cross-entropy of logits against one verdict (Goodfellow et al. 2014; Wang et al. 2023, eq. 5 and 6).

    MONAI's ``PatchAdversarialLoss`` takes the logarithm of a sigmoid, whose gradient is 0 where a discriminator is
    sure; here both are one function, whose gradient is not.

    Args:
        target: the verdict to be reached, 1 for real and 0 for generated.
    """

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of any shape to a scalar."""
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, self.target))
