"""Thin slabs: a few neighbouring slices of a volume are the channels of a 2-D network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def slab_to_channels(slab: torch.Tensor) -> torch.Tensor:
    """View a slab as a 2-D image whose channels are its slices.

    Args:
        slab: ``(B, 1, H, W, Z)``.

    Returns:
        ``(B, Z, H, W)``; without a copy, and in channels-last layout where the slab is contiguous.
    """
    return slab[:, 0].permute(0, 3, 1, 2)


def channels_to_slab(image: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`slab_to_channels`: ``(B, Z, H, W)`` to ``(B, 1, H, W, Z)``."""
    return image.permute(0, 2, 3, 1).unsqueeze(1)


def to_channels_last(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a network to a device, its 2-D convolutions in the layout that :func:`slab_to_channels` gives slabs."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


class SlabEncoder(nn.Module):
    """The encoder of a thin slab: 3x3 convolutions with LeakyReLU between (Liu et al. 2023, fig. 3).

    Args:
        slices: slices of the slab that comes in.
        features: channels of every layer.
        layers: number of convolutions, at least 1.
        stride: in-plane factors ``(H, W)`` by which the first convolution downsamples; (1, 1) keeps the size. The
            downsampling feature extractor of the paper takes the scale of the super-resolution here.
        offset: centre of feature pixel 0 in pixels of the slab, a multiple of 1/2, along H and W
            (``Degradation.offset``). The first convolution is centred there: between two pixels with an even kernel.
        negative_slope: of the LeakyReLU.
    """

    def __init__(
        self,
        slices: int = 3,
        features: int = 64,
        layers: int = 6,
        stride: Sequence[int] = (1, 1),
        offset: Sequence[float] = (0.0, 0.0),
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        # The kernel on pixel 0 reaches from -padding to kernel - 1 - padding, whose middle is the offset.
        kernel = [max(3 + int(2 * o) % 2, int(2 * o) + 1) for o in offset]
        padding = [int((k - 1) / 2 - o) for k, o in zip(kernel, offset, strict=True)]
        body: list[nn.Module] = [nn.Conv2d(slices, features, kernel, stride=tuple(stride), padding=padding)]
        for _ in range(layers - 1):
            body += [nn.LeakyReLU(negative_slope, inplace=True), nn.Conv2d(features, features, 3, padding=1)]
        self.body = nn.Sequential(*body)

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, slices)`` to features ``(B, features, H / stride, W / stride)``."""
        return self.body(slab_to_channels(slab))


class SlabSuperResolver(nn.Module):
    """Encoder and decoder as one network from an LR slab to an HR slab: what inference needs.

    Args:
        encoder: maps a slab to features.
        decoder: maps features, and the slab that they came from, to the HR slab.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, Z)`` to ``(B, 1, sx H, sy W, sz Z)``."""
        return self.decoder(self.encoder(lr), lr)
