"""Encoder, residual blocks and decoder on interpolated images (ReconResNet, Chatterjee et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..values import is_true
from .float32 import FromImage, InstanceNorm, image_layer


class _Block(nn.Module):
    """Two 3x3 convolutions with instance norm, PReLU and dropout between, added to their input."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            InstanceNorm(),
            nn.PReLU(),
            nn.Dropout2d(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            InstanceNorm(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ReconResNet(nn.Module):
    """Two halvings, residual blocks, two doublings, between convolutions of 7x7.

    With 64 features, 14 blocks and one channel it has 17,266,452 parameters.

    Args:
        features: channels of the first convolution; twice as many after each halving.
        blocks: residual blocks.
        dropout: probability that a block leaves a channel out, in training.
        residual: whether it learns the difference from the interpolation, with 0 at the start. False for the original,
            which learns the whole image and ends with a sigmoid.

    Source:
        Chatterjee et al., Computers in Biology and Medicine 143, 2022 (arXiv 2103.09203), and the authors' repository
        NCC1701.
    """

    def __init__(self, features: int = 64, blocks: int = 14, dropout: float = 0.2, residual: bool | str = True) -> None:
        super().__init__()
        self.residual = is_true(residual, "residual")
        self.sizes = {"features": features, "blocks": blocks, "residual": self.residual}
        wide = 4 * features
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), FromImage(1, features, 7)]
        layers += [InstanceNorm(), nn.PReLU()]
        for channels in (features, 2 * features):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
            layers += [InstanceNorm(), nn.PReLU()]
        layers += [_Block(wide, dropout) for _ in range(blocks)]
        for channels in (wide, wide // 2):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)]
            layers += [InstanceNorm(), nn.PReLU()]
        layers += [nn.ReflectionPad2d(3), image_layer(self.residual, features, 1, 7)]
        self.body = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 1, H, W)`` of any size to the same shape."""
        # Halved twice and reflected at its borders: multiples of 4, at least 16. Scripts cannot read named constants.
        height, width = image.shape[-2], image.shape[-1]
        below, beside = max(16 - height, -height % 4), max(16 - width, -width % 4)
        padded = F.pad(image, [0, beside, 0, below], mode="replicate")
        sr = self.body(padded)[..., :height, :width]
        return image + sr if self.residual else torch.sigmoid(sr)
