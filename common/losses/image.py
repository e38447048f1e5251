"""Losses between images."""

from __future__ import annotations

import os
from typing import Any

import torch
from monai.networks.layers import gaussian_1d
from torch import nn
from torch.nn import functional as F

from ..networks.slab import slab_to_channels
from ..networks.vgg import VGG16Features
from ..runtime.distributed import print_once
from ..runtime.memory import to_channels_last


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
        self.kernel = nn.Buffer(gaussian_1d(torch.tensor(sigma), truncated=3.0), persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` to a scalar."""
        difference = slab_to_channels(x.float() - y.float())
        # One image per slice, or one of the mean.
        difference = difference.flatten(0, 1)[:, None] if self.each_slice else difference.mean(dim=1, keepdim=True)
        difference = F.conv2d(difference, self.kernel.view(1, 1, -1, 1))
        return F.conv2d(difference, self.kernel.view(1, 1, 1, -1)).abs().mean()


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
        self.window = nn.Buffer((row[:, None] * row)[None, None], persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two batches ``(B, C, H, W)`` with ``H, W >= window`` to a scalar in [0, 2]."""
        with torch.autocast(x.device.type, enabled=False):
            return 1 - self._compute_map(x.float(), y.float()).mean()

    def _compute_map(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
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
            ssim = self._compute_map(slab_to_channels(x).float(), slab_to_channels(y).float())
            return (1 - ssim.mean(dim=(1, 2, 3)).square()).abs().mean()


class PerceptualLoss(nn.Module):
    """Mean squared distance of two images' features in VGG-16 (Johnson et al. 2016; Wang et al. 2023, eq. 4).

    Args:
        weights: torchvision's file ``vgg16-397923af.pth``; None turns the loss off, with a printed line.
        layer: as for :class:`common.networks.VGG16Features`.
        required: whether the file must be given.

    Attributes:
        has_weights: whether there are weights. It is a factor of the loss's weight in a table, where 0 leaves the loss
            out.

    Raises:
        FileNotFoundError, ValueError: as :class:`common.networks.VGG16Features`.
    """

    def __init__(self, weights: str | os.PathLike | None, layer: str = "relu4_3", required: bool = False) -> None:
        super().__init__()
        self.has_weights = required or weights is not None
        self.features: Any = VGG16Features(weights, layer) if self.has_weights else None
        if not self.has_weights:
            print_once("the perceptual loss is off: it needs the weights of VGG-16, --vgg_weights FILE")

    def to(self, device: torch.device) -> PerceptualLoss:  # type: ignore[override]
        """Move the network to a device, in the layout of the other networks."""
        if self.features is not None:
            to_channels_last(self.features, device)
        return self

    def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Two images ``(B, 1, H, W)`` in [-1, 1] to a scalar."""
        return F.mse_loss(self.features(image), self.features(target))


class WeightedL1Loss(nn.Module):
    """``mean w |x - y|``, each pixel with a weight (Wei et al. 2021)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Two slabs ``(B, 1, H, W, Z)`` and weights that broadcast to them, to a scalar."""
        return (weights * (x - y).abs()).mean()
