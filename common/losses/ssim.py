"""SSIM losses of images and slabs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..networks.slab import slab_to_channels


class SSIMLoss(nn.Module):
    """``1 - SSIM(x, y)``, the mean over a batch of images in [0, 1].

    It is computed in float32 even under autocast. The Gaussian window stays on the loss's device; MONAI's loss makes it
    on the CPU at each call, so a GPU has to wait.

    Args:
        window: edge of the Gaussian window in pixels.
        sigma: of the window in pixels.
    """

    def __init__(self, window: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        position = torch.arange(window) - (window - 1) / 2
        row = torch.exp(-(position / sigma).square() / 2)
        row = row / row.sum()
        self.register_buffer("window", (row[:, None] * row)[None, None], persistent=False)
        self.window: torch.Tensor

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two batches ``(B, C, H, W)`` with ``H, W >= window`` to a scalar in [0, 2]."""
        with torch.autocast(x.device.type, enabled=False):
            return 1 - self._map(x.float(), y.float()).mean()

    def _map(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """SSIM of images ``(B, C, H, W)``, pixel by pixel where the window fits (Wang et al. 2004, eq. 13)."""
        window = self.window.expand(x.shape[1], -1, -1, -1)
        means = [F.conv2d(z, window, groups=x.shape[1]) for z in (x, y, x * x, y * y, x * y)]
        mu_x, mu_y, mu_xx, mu_yy, mu_xy = means
        c1, c2 = 0.01**2, 0.03**2  # for images in [0, 1]
        structure = (2 * (mu_xy - mu_x * mu_y) + c2) / ((mu_xx - mu_x * mu_x) + (mu_yy - mu_y * mu_y) + c2)
        return ((2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)) * structure


class SquaredSSIMLoss(SSIMLoss):
    """``mean_i |1 - SSIM(x_i, y_i)^2|`` over the samples of a batch (Liu et al. 2023, eq. 2).

    SSIM is 2-D, because an 11-voxel window does not fit across a slab of 3 or 6 slices. A sample's SSIM is the mean
    over its slices.

    Args:
        window, sigma: as for :class:`SSIMLoss`.
    """

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` with ``H, W >= window`` to a scalar in [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            ssim = self._map(slab_to_channels(x).float(), slab_to_channels(y).float())
            return (1 - ssim.mean(dim=(1, 2, 3)).square()).abs().mean()
