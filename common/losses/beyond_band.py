"""What agreement with the scan cannot give: an error beyond the frequencies that the scan has measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..degradations import BandLimit


class BeyondBandLoss(nn.Module):
    r"""``mean |e - B e|`` of the difference ``e`` of two patches, with ``B`` the band of k-space that LR has.

    At inference a result is made to agree with the scan, which sets what lies within the band. What is left of the
    error lies beyond it, so a network that is trained on this spends itself on what the scan does not say. It takes the
    difference of the two patches as periodic.

    Args:
        factors: HR voxels per LR voxel along each axis, at least one larger than 1.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.band = BandLimit(factors)

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        """Two patches ``(B, 1, H, W, Z)`` to a scalar."""
        difference = sr - hr
        return (difference - self.band(difference)).abs().mean()
