"""Adversarial losses, for discriminators and for generators."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class _TargetLoss(nn.Module):
    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target


class AdaptationLoss(_TargetLoss):
    """Mean distance of verdicts from undecided, ``mean |D - target|`` (one term of Liu et al. 2023, eq. 8 and 9).

    Args:
        target: the verdict of a discriminator that cannot tell the domains apart.
    """

    def __init__(self, target: float = 0.5) -> None:
        super().__init__(target)

    def forward(self, verdict: torch.Tensor) -> torch.Tensor:
        """Verdicts of any shape to a scalar."""
        return (verdict - self.target).abs().mean()


class LeastSquaresLoss(_TargetLoss):
    """Mean squared distance of a verdict from one target (Mao et al. 2017; Liu et al. 2023, eq. 4, 11 and 12).

    Args:
        target: the verdict to be reached, 1 for real and 0 for generated.
    """

    def forward(self, verdict: torch.Tensor) -> torch.Tensor:
        """A verdict of any shape to a scalar."""
        return F.mse_loss(verdict, torch.full_like(verdict, self.target))


class CrossEntropyLoss(_TargetLoss):
    """Binary cross-entropy of logits against one verdict (Goodfellow et al. 2014; Wang et al. 2023, eq. 5 and 6).

    MONAI's ``PatchAdversarialLoss`` takes the logarithm of a sigmoid. Its gradient is 0 if the discriminator is sure.
    Here sigmoid and logarithm are one function, which keeps its gradient.

    Args:
        target: as for :class:`LeastSquaresLoss`.
    """

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of any shape to a scalar."""
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, self.target))


class WassersteinLoss(nn.Module):
    """The mean verdict of a critic, to raise or to lower (Arjovsky et al. 2017; Gulrajani et al. 2017, eq. 3).

    Args:
        raised: True for real images in the critic's loss, and for generated images in the generator's loss; False for
            generated images in the critic's loss.
    """

    def __init__(self, raised: bool) -> None:
        super().__init__()
        self.sign = -1.0 if raised else 1.0

    def forward(self, verdict: torch.Tensor) -> torch.Tensor:
        """A verdict of any shape to a scalar."""
        return self.sign * verdict.mean()


class GradientPenalty(nn.Module):
    r"""Penalty on a critic's slope that differs from 1 (Gulrajani et al. 2017, eq. 3, without lambda).

    .. math:: \left( \lVert \nabla_x D(x) \rVert_2 - 1 \right)^2, \qquad x = u\,r + (1 - u)\,f

    with one u for each pair of a real and a generated image, drawn uniformly from 0 to 1.

    Args:
        critic: D, the network of the graph; its gradient is differentiated again.
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Two batches ``(B, ...)`` of one shape and u ``(B, 1)`` to a scalar."""
        share = share.view(-1, *[1] * (real.ndim - 1))
        between = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).square().mean()
