"""Disentangled translation between two kinds of images: the networks of MUNIT (Huang et al. 2018, appendix B)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .float32 import FromImage, InstanceNorm, ToImage

_HALVINGS = 2  # of the resolution, from image to content
_WIDTH = 256  # of the perceptron's hidden layers


class ContentEncoder(nn.Module):
    """Encode an image's content: structure at a quarter of the resolution, without mean and scale of intensities.

    It has a 7x7 convolution, two 4x4 convolutions with stride 2 that double the channels, and residual blocks. Instance
    norm and ReLU follow each convolution.

    Args:
        features: channels of the first convolution.
        blocks: residual blocks.
    """

    def __init__(self, features: int = 64, blocks: int = 4) -> None:
        super().__init__()
        body: list[nn.Module] = [FromImage(1, features, 7, padding=3, padding_mode="reflect")]
        for _ in range(_HALVINGS):
            body += [InstanceNorm(), nn.ReLU(inplace=True)]
            body.append(nn.Conv2d(features, 2 * features, 4, stride=2, padding=1, padding_mode="reflect"))
            features *= 2
        body += [InstanceNorm(), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body, *(_ResidualBlock(features) for _ in range(blocks)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, 4 features, H / 4, W / 4)``."""
        return self.body(image)


class _ResidualBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, padding_mode="reflect"),
            InstanceNorm(),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1, padding_mode="reflect"),
            InstanceNorm(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class AttributeEncoder(nn.Module):
    """Encode an image's attributes: a short vector that describes the appearance of its kind of images.

    It has a 7x7 convolution, 4x4 convolutions with stride 2 and ReLU, the mean over the image, and a 1x1 convolution.
    There is no instance norm, because attributes describe the mean and scale of intensities.

    Args:
        attributes: length of the vector.
        features: channels of the first convolution; they double with each of the first two halvings.
        downsamplings: halvings of the resolution, at least 2.

    Attributes:
        smallest: smallest size of an image along each axis, in pixels.
    """

    def __init__(self, attributes: int = 8, features: int = 64, downsamplings: int = 4) -> None:
        super().__init__()
        self.smallest = 2**downsamplings
        body: list[nn.Module] = [FromImage(1, features, 7, padding=3, padding_mode="reflect"), nn.ReLU(inplace=True)]
        for i in range(downsamplings):
            wider = features * 2 if i < 2 else features
            body += [nn.Conv2d(features, wider, 4, stride=2, padding=1, padding_mode="reflect"), nn.ReLU(inplace=True)]
            features = wider
        self.body = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Conv2d(features, attributes, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, attributes)``."""
        return self.body(image).flatten(1)


class AdaptiveDecoder(nn.Module):
    """Decode content and attributes to an image in [-1, 1].

    Residual blocks have adaptive norms: a perceptron computes each channel's mean and scale from the attributes (Huang
    and Belongie 2017, eq. 8). Then follow two steps of nearest-neighbour upsampling and a 5x5 convolution that halves
    the channels, with layer norm and ReLU. A 7x7 convolution and tanh give the image.

    Args:
        attributes: length of the vector.
        features: channels before the last convolution, equal to those of the encoder's first convolution.
        blocks: residual blocks.
    """

    def __init__(self, attributes: int = 8, features: int = 64, blocks: int = 4) -> None:
        super().__init__()
        content = features * 2**_HALVINGS
        self.blocks = nn.ModuleList(_AdaptiveBlock(content) for _ in range(blocks))
        self.perceptron = nn.Sequential(
            nn.Linear(attributes, _WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(_WIDTH, blocks * 4 * content),
        )
        tail: list[nn.Module] = []
        for _ in range(_HALVINGS):
            tail += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(content, content // 2, 5, padding=2, padding_mode="reflect"),
                nn.GroupNorm(1, content // 2),  # one group: layer norm
                nn.ReLU(inplace=True),
            ]
            content //= 2
        tail += [ToImage(content, 1, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.tail = nn.Sequential(*tail)

    def forward(self, content: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """``(B, 4 features, H / 4, W / 4)`` and ``(B, attributes)`` to ``(B, 1, H, W)``."""
        parameters = self.perceptron(attributes).chunk(len(self.blocks), dim=1)
        for block, block_parameters in zip(self.blocks, parameters, strict=True):
            content = block(content, block_parameters)
        return self.tail(content)


class _AdaptiveBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = InstanceNorm()
        self.first = nn.Conv2d(features, features, 3, padding=1, padding_mode="reflect")
        self.second = nn.Conv2d(features, features, 3, padding=1, padding_mode="reflect")

    def forward(self, x: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """``parameters``, ``(B, 4 features)``: shift, and scale minus 1, of both norms."""
        shift_1, scale_1, shift_2, scale_2 = (p[:, :, None, None] for p in parameters.chunk(4, dim=1))
        hidden = torch.relu(self.norm(self.first(x)) * (1 + scale_1) + shift_1)
        return x + self.norm(self.second(hidden)) * (1 + scale_2) + shift_2


class MultiScaleDiscriminator(nn.Module):
    """Verdicts on patches of an image at several resolutions (Wang et al. 2018, section 3.2, in MUNIT's form).

    Each scale has 4x4 convolutions with stride 2 and LeakyReLU, and a 1x1 convolution. Between scales the image is
    averaged over 3x3 pixels with stride 2. MONAI's ``MultiScalePatchDiscriminator`` has one resolution and batch norm.

    Args:
        features: channels of the first convolution; each later one has twice as many.
        layers: convolutions with stride 2.
        scales: number of resolutions.

    Attributes:
        smallest: smallest size of an image along each axis, in pixels.
    """

    def __init__(self, features: int = 64, layers: int = 4, scales: int = 3) -> None:
        super().__init__()
        self.smallest = 2 ** (layers + scales - 1)
        self.scales = nn.ModuleList(self._make_discriminator(features, layers) for _ in range(scales))
        self.coarser = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    @staticmethod
    def _make_discriminator(features: int, layers: int) -> nn.Sequential:
        body: list[nn.Module] = []
        inputs = 1
        for _ in range(layers):
            body += [
                nn.Conv2d(inputs, features, 4, stride=2, padding=1, padding_mode="reflect"),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            inputs, features = features, 2 * features
        return nn.Sequential(*body, nn.Conv2d(inputs, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to logits ``(B, scales, h, w)``; coarser scales are repeated on the finest grid."""
        verdicts: list[torch.Tensor] = []
        for judge in self.scales:
            verdict = judge(image)
            verdicts.append(F.interpolate(verdict, size=verdicts[0].shape[2:]) if verdicts else verdict)
            image = self.coarser(image)
        return torch.cat(verdicts, dim=1)
