"""Inputs of DASR's losses: the bands of a Haar transform, and the distance of a patch from the target domain."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..degradations import Degradation
from .slab import channels_to_slab, slab_to_channels


class HighBands(nn.Module):
    """The three high bands of an orthonormal Haar transform in plane (Wei et al. 2021).

    Example:
        >>> HighBands()(torch.rand(2, 1, 8, 12, 3)).shape
        torch.Size([2, 9, 4, 6])
    """

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """A slab ``(B, 1, H, W, Z)``, H and W even, to ``(B, 3 Z, H / 2, W / 2)``: horizontal, vertical, diagonal."""
        image = slab_to_channels(slab)
        a, b = image[..., ::2, ::2], image[..., ::2, 1::2]
        c, d = image[..., 1::2, ::2], image[..., 1::2, 1::2]
        return torch.cat([a + c - b - d, a + b - c - d, a + d - b - c], dim=1) / 2


class DomainDistance(nn.Module):
    """Weights of HR pixels, from a discriminator's verdicts on small patches of the generated LR image.

    Verdicts are logits for "from the target". Their probabilities are repeated up to the border of the image, which
    patches do not reach. Then they are interpolated onto the HR grid (Wei et al. 2021). No gradient passes.

    Args:
        degradation: from HR to LR, with one factor in plane.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.factor = degradation.factors[0]

    def forward(self, verdicts: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        """Verdicts ``(B, 1, H', W')`` on a slab ``(B, 1, H, W, Z)`` to weights ``(B, 1, factor H, factor W, 1)``."""
        weights = verdicts.detach().float().sigmoid()
        rows, columns = ((n - m) // 2 for n, m in zip(lr.shape[2:4], weights.shape[2:], strict=True))
        weights = F.pad(weights, (columns, columns, rows, rows), mode="replicate")
        weights = F.interpolate(weights, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return channels_to_slab(weights)
