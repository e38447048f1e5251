"""The anchor: it fixes low frequencies of a learned LR image, which the adversary must not change."""

from __future__ import annotations

import torch
from monai.networks.layers import gaussian_1d
from torch import nn
from torch.nn import functional as F

from ..networks.slab import slab_to_channels


class LowFrequencyLoss(nn.Module):
    """``mean |G x - G y|``, with ``G`` a Gaussian low-pass in plane and the mean across the slab.

    Unpaired losses accept a learned LR image that is shifted or rescaled; this loss does not. It compares low
    frequencies with those of a generic degradation of the same HR image. It leaves to the adversary the frequencies in
    which degradations differ. In a thin slab, these include all differences between slices, so only their mean is
    compared. A network that could exchange or mix slices needs ``each_slice``. It then learns the generic degradation's
    profile across the slab.

    Args:
        sigma: of the low-pass in LR pixels. Pixels are compared only where the Gaussian fits into the slab.
        each_slice: whether to compare each slice instead of their mean.
    """

    def __init__(self, sigma: float = 2.0, each_slice: bool = False) -> None:
        super().__init__()
        self.each_slice = each_slice
        self.register_buffer("kernel", gaussian_1d(torch.tensor(sigma), truncated=3.0), persistent=False)
        self.kernel: torch.Tensor

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` to a scalar."""
        difference = slab_to_channels(x.float() - y.float())
        # One image per slice, or one of the mean.
        difference = difference.flatten(0, 1)[:, None] if self.each_slice else difference.mean(dim=1, keepdim=True)
        difference = F.conv2d(difference, self.kernel.view(1, 1, -1, 1))
        return F.conv2d(difference, self.kernel.view(1, 1, 1, -1)).abs().mean()
