"""Distance between two images in the features of a network for photographs."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..networks.vgg import VGG16Features
from ..runtime.distributed import say
from ..runtime.memory import to_channels_last


class PerceptualLoss(nn.Module):
    """Mean squared distance of two images' features in VGG-16 (Johnson et al. 2016; Wang et al. 2023, eq. 4).

    Args:
        weights: torchvision's file ``vgg16-397923af.pth``; None turns the loss off, with a printed line.
        layer: as for :class:`common.networks.VGG16Features`.

    Attributes:
        given: whether there are weights. It is a factor of the loss's weight in a table, where 0 leaves the loss out.
    """

    def __init__(self, weights: str | os.PathLike | None, layer: str = "relu4_3") -> None:
        super().__init__()
        self.given = weights is not None
        self.features: Any = VGG16Features(weights, layer) if self.given else None
        if not self.given:
            say("the perceptual loss is off: it needs the weights of VGG-16, --vgg_weights FILE")

    def to(self, device: torch.device) -> PerceptualLoss:  # type: ignore[override]
        """Move the network to a device, in the layout of the other networks."""
        if self.features is not None:
            to_channels_last(self.features, device)
        return self

    def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Two images ``(B, 1, H, W)`` in [-1, 1] to a scalar."""
        return F.mse_loss(self.features(image), self.features(target))
