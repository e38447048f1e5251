"""Features of places of a slab, which a contrastive loss compares (Park et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .slab import SlabEncoder, slab_to_channels


class RandomPlaces(nn.Module):
    """Draw pixels of a slab at random, each at most once, as a step of a graph.

    Args:
        count: number of pixels; all of the slab's, if it has fewer.
    """

    def __init__(self, count: int = 256) -> None:
        super().__init__()
        self.count = count

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """A slab ``(B, 1, H, W, Z)`` to indices into its H W pixels, the same for all slabs of the batch."""
        return torch.randperm(slab.shape[2] * slab.shape[3], device=slab.device)[: self.count]


class RandomSubgrid(nn.Module):
    """Draw one of the grids with LR spacing that HR voxels form, as a step of a graph.

    Args:
        factors: HR voxels per LR voxel along each axis.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """A tensor on the device of the result to the subgrid's first HR voxel, ``(3,)``, each below its factor."""
        return torch.cat([torch.randint(factor, (1,), device=slab.device) for factor in self.factors])


class PlaceFeatures(nn.Module):
    """Features that layers of an LR slab's encoder compute at some places of an HR slab.

    The encoder sees the HR voxels of one subgrid, which has the spacing and size of an LR slab. So two HR slabs are
    compared at the same positions, and all HR voxels have their turn.

    Args:
        encoder: whose layers are read; of one slab orientation and without stride, so that features are where pixels
            are.
        factors: HR voxels per LR voxel along each axis.
        layers: 0 for the slab itself, from -1 to 1, whose direction then tells its brightness; n for the n-th
            convolution, with the activation that follows.

    Attributes:
        channels: of each layer.

    Raises:
        ValueError: if a layer is not in the encoder.
    """

    def __init__(self, encoder: SlabEncoder, factors: Sequence[int], layers: Sequence[int] = (0, 1, 2, 4, 6)) -> None:
        super().__init__()
        self.encoder, self.factors, self.layers = encoder, tuple(factors), tuple(layers)
        body: Any = encoder.body
        last = (len(body) + 1) // 2
        if unknown := [layer for layer in self.layers if not 0 <= layer <= last]:
            raise ValueError(f"PlaceFeatures: layers has {unknown}, expected 0 for the slab to {last}, the last layer.")
        self.channels = [body[0].out_channels if layer else body[0].in_channels for layer in self.layers]

    def forward(self, slab: torch.Tensor, subgrid: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """An HR slab to features ``(B, S, sum of channels)``.

        Args:
            slab: ``(B, 1, sH, sW, sZ slices)``.
            subgrid: its first HR voxel, ``(3,)``.
            places: indices ``(S,)`` into its H W pixels.
        """
        for axis, (factor, first) in enumerate(zip(self.factors, subgrid, strict=True), start=2):
            voxels = torch.arange(0, slab.shape[axis], factor, device=slab.device) + first
            slab = slab.index_select(axis, voxels)
        x = slab_to_channels(slab)
        features = [2 * x - 1]
        for layer in self.encoder.body:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                features.append(x)
            else:
                features[-1] = x
        at_places = [features[layer].flatten(2).index_select(2, places) for layer in self.layers]
        return torch.cat(at_places, dim=1).transpose(1, 2)


class ProjectionHeads(nn.Module):
    """Two dense layers for the features of each layer of an encoder, all to one width (Park et al. 2020, section 3.2).

    Args:
        channels: of the features of each layer (``PlaceFeatures.channels``).
        width: of both dense layers.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.channels = list(channels)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, width)) for n in channels
        )
        for parameter in self.heads.parameters():
            # A random bias would be larger than what differs between places, and the loss sees directions only.
            nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, S, sum of channels)`` to ``(B, layers, S, width)``."""
        parts = features.split(self.channels, dim=-1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=1)
