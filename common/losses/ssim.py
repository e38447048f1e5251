"""The SSIM loss of a slab."""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import nn

from ..networks.slab import slab_to_channels


class SquaredSSIMLoss(nn.Module):
    """``mean_i |1 - SSIM(x_i, y_i)^2|`` over the samples of a batch (Liu et al. 2023, eq. 2).

    SSIM is 2-D with a Gaussian window, slice by slice, because an 11-voxel window does not fit across a slab of 3 or 6
    slices; a sample's SSIM is the mean over its slices. It is computed in float32 also under autocast.

    Args:
        window: edge of the Gaussian window in pixels.
        sigma: of the window in pixels.
        data_range: of the images.
    """

    def __init__(self, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> None:
        super().__init__()
        self.window = (window, window)
        self.sigma = (sigma, sigma)
        self.data_range = data_range

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` with ``H, W >= window`` to a scalar in [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            ssim, _ = compute_ssim_and_cs(
                slab_to_channels(x).float(),
                slab_to_channels(y).float(),
                spatial_dims=2,
                kernel_size=self.window,
                kernel_sigma=self.sigma,
                data_range=self.data_range,
            )
            return (1 - ssim.mean(dim=(1, 2, 3)).square()).abs().mean()
