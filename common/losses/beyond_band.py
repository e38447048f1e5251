"""An error beyond the frequencies that the scan has measured, which agreement with the scan cannot reduce."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..degradations import BandLimit


class BeyondBandLoss(nn.Module):
    r"""``mean |e - B e|`` of the difference ``e`` of two patches; ``B`` keeps the band of k-space of LR.

    At inference, agreement with the scan corrects the result within the band. The remaining error lies beyond it. So
    this loss directs the network to frequencies that the scan does not hold. The difference of the two patches is taken
    as periodic.

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
