"""The anchor: what of a learned LR image is not the adversary's to choose."""

from __future__ import annotations

import torch
from monai.networks.layers import gaussian_1d
from torch import nn
from torch.nn import functional as F

from ..networks.slab import slab_to_channels


class LowFrequencyLoss(nn.Module):
    """``mean |G x - G y|``, with ``G`` a Gaussian low-pass in plane and the mean across the slab.

    Unpaired losses are content with a learned LR image that is shifted or rescaled. This one is not: it compares low
    frequencies with those of a generic degradation of the same HR image, and leaves the frequencies in which
    degradations differ to the adversary. A slab is so thin that all differences between its slices are such
    frequencies, so the order of its slices is not compared, unless each is compared by itself: a network that could
    exchange or mix them needs that, and then has the generic degradation's profile across the slab.

    Args:
        sigma: of the low-pass in LR pixels; only where the Gaussian fits into the slab is compared.
        each_slice: whether each slice is compared, in place of their mean.
    """

    def __init__(self, sigma: float = 2.0, each_slice: bool = False) -> None:
        super().__init__()
        self.each_slice = each_slice
        self.register_buffer("kernel", gaussian_1d(torch.tensor(sigma), truncated=3.0), persistent=False)
        self.kernel: torch.Tensor

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` to a scalar."""
        difference = slab_to_channels(x.float() - y.float())
        # One image a slice, or one of the mean.
        difference = difference.flatten(0, 1)[:, None] if self.each_slice else difference.mean(dim=1, keepdim=True)
        difference = F.conv2d(difference, self.kernel.view(1, 1, -1, 1))
        return F.conv2d(difference, self.kernel.view(1, 1, 1, -1)).abs().mean()
