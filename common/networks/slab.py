"""Thin slabs: a few neighbouring slices of a volume as the channels of a 2-D network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .float32 import FromImage


def slab_to_channels(slab: torch.Tensor) -> torch.Tensor:
    """View a slab ``(B, 1, H, W, Z)`` as an image ``(B, Z, H, W)``, channels-last if the slab is contiguous."""
    return slab[:, 0].permute(0, 3, 1, 2)


def channels_to_slab(image: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`slab_to_channels`: ``(B, Z, H, W)`` to ``(B, 1, H, W, Z)``."""
    return image.permute(0, 2, 3, 1).unsqueeze(1)


def slices_to_batch(image: torch.Tensor) -> torch.Tensor:
    """Slices ``(B, C, H, W, Z)`` as a batch of 2-D images ``(B Z, C, H, W)``."""
    return image.permute(0, 4, 1, 2, 3).flatten(0, 1)


def batch_to_slices(planes: torch.Tensor, batch: int) -> torch.Tensor:
    """The inverse of :func:`slices_to_batch` for ``batch`` volumes: ``(B Z, C, H, W)`` to ``(B, C, H, W, Z)``."""
    return planes.unflatten(0, (batch, -1)).permute(0, 2, 3, 4, 1)


class SlabEncoder(nn.Module):
    """The encoder of a thin slab: 3x3 convolutions with LeakyReLU between (Liu et al. 2023, fig. 3).

    Args:
        slices: slices of the input slab.
        features: channels of every layer.
        layers: number of convolutions, at least 1.
        stride: in-plane factors ``(H, W)`` by which the first convolution downsamples; (1, 1) keeps the size. For the
            paper's downsampling feature extractor, give the scale of the super-resolution.
        offset: centre of feature pixel 0 in pixels of the slab, a multiple of 1/2, along H and W
            (``Degradation.offset``). The first convolution is centred there; between two pixels its kernel is even.
        slab_orientations: number of kinds of slabs. A vector per kind is added to the output of the first convolution.
            3 if any axis of a volume may lie across a slab; 1 for no distinction.
    """

    def __init__(
        self,
        slices: int = 3,
        features: int = 64,
        layers: int = 6,
        stride: Sequence[int] = (1, 1),
        offset: Sequence[float] = (0.0, 0.0),
        slab_orientations: int = 1,
    ) -> None:
        super().__init__()
        # The kernel on pixel 0 reaches from -padding to kernel - 1 - padding, whose middle is the offset.
        kernel = [max(3 + int(2 * o) % 2, int(2 * o) + 1) for o in offset]
        padding = [int((k - 1) / 2 - o) for k, o in zip(kernel, offset, strict=True)]
        body: list[nn.Module] = [FromImage(slices, features, kernel, stride=tuple(stride), padding=padding)]  # type: ignore[arg-type]
        for _ in range(layers - 1):
            body += [nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(features, features, 3, padding=1)]
        self.body = nn.Sequential(*body)
        self.directions = nn.Parameter(torch.zeros(slab_orientations, features)) if slab_orientations > 1 else None

    def forward(self, slab: torch.Tensor, slab_orientation: torch.Tensor | None = None) -> torch.Tensor:
        """Slabs ``(B, 1, H, W, slices)`` to features ``(B, features, H / stride, W / stride)``.

        ``slab_orientation``, ``(B, 3)`` or ``(1, 3)``, says which axis of the volume lies along H, W and Z of each
        slab. None stands for 0, 1 and 2. Only the last of the three is read, and only with ``slab_orientations``.
        """
        features = slab_to_channels(slab)
        for i, layer in enumerate(self.body):
            features = layer(features)
            if i == 0 and self.directions is not None:
                direction = (
                    self.directions[-1:] if slab_orientation is None else self.directions[slab_orientation[:, -1]]
                )
                features = features + direction[:, :, None, None]
        return features


class SlabSuperResolver(nn.Module):
    """Encoder and decoder as one network from an LR slab to an HR slab, for inference.

    Args:
        encoder: maps a slab to features.
        decoder: maps the features and their slab to the HR slab.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, lr: torch.Tensor, axis: int = -1) -> torch.Tensor:
        """Slabs ``(B, 1, H, W, Z)`` to ``(B, 1, sx H, sy W, sz Z)``.

        ``axis`` is the axis of the volume that lies across the slabs; -1 is the last. An encoder with one
        orientation ignores it.
        """
        slab_orientation = torch.full((1, 3), axis, dtype=torch.long, device=lr.device)
        return self.decoder(self.encoder(lr, slab_orientation), lr)
