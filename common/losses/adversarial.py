"""Losses of a Wasserstein game."""

from __future__ import annotations

import torch
from torch import nn


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
