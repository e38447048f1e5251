"""A network from coordinates to the values of the contrasts there, and steps of a graph around it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import nn

from .float32 import ToValues


class FourierFeatures(nn.Module):
    r"""Sines and cosines of random frequencies: :math:`\sqrt{2}\,[\cos 2\pi B x, \sin 2\pi B x]`.

    Always in float32, because in bfloat16 a coordinate of 100 mm is known to half a millimetre.

    Args:
        frequencies: number of rows of B; there are twice as many features.
        bandwidth: standard deviation of B, in cycles per mm.

    Source:
        Tancik et al. 2020, section 6.
    """

    def __init__(self, frequencies: int, bandwidth: float) -> None:
        super().__init__()
        self.matrix = nn.Buffer(2 * math.pi * bandwidth * torch.randn(3, frequencies))

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates ``(..., 3)`` in mm to features ``(..., 2 frequencies)``."""
        x, y, z = coordinates.float().unsqueeze(-1).unbind(-2)
        phase = (
            x * self.matrix[0] + y * self.matrix[1] + z * self.matrix[2]
        )  # autocast would lower a product's precision
        return math.sqrt(2) * torch.cat([phase.cos(), phase.sin()], dim=-1)


class CoordinateNetwork(nn.Module):
    """An implicit neural representation of an exam: coordinates to the values of all contrasts (McGinnis et al. 2023).

    Fourier features and hidden layers are shared by the contrasts. Each contrast has a head of its own, with one hidden
    layer of half the width.

    Args:
        contrasts: number of contrasts.
        features: width of the hidden layers.
        layers: hidden layers that the contrasts share.
        frequencies, bandwidth: as for :class:`FourierFeatures`.
    """

    def __init__(
        self, contrasts: int = 2, features: int = 1024, layers: int = 4, frequencies: int = 256, bandwidth: float = 0.03
    ) -> None:
        super().__init__()
        self.sizes = dict[str, Any](features=features, layers=layers, frequencies=frequencies, bandwidth=bandwidth)
        widths = [2 * frequencies, *[features] * layers]
        shared: list[nn.Module] = [FourierFeatures(frequencies, bandwidth)]
        for before, after in itertools.pairwise(widths):
            shared += [nn.Linear(before, after), nn.ReLU()]
        self.shared = nn.Sequential(*shared)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features, features // 2), nn.ReLU(), ToValues(features // 2, 1))
            for _ in range(contrasts)
        )

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates ``(..., 3)`` in mm to values ``(..., contrasts)`` in float32."""
        features = self.shared(coordinates)
        return torch.cat([head(features) for head in self.heads], dim=-1)

    def renew(self, contrasts: int) -> CoordinateNetwork:
        """A network of the same sizes for another number of contrasts, with new weights."""
        return CoordinateNetwork(contrasts, **self.sizes)


class AverageOverSlice(nn.Module):
    """What the stacks should show: each contrast's own values, averaged over points across the slice."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values of all contrasts at points of each ``(contrasts, N, points, contrasts)`` to ``(contrasts, N)``."""
        return torch.stack([values[i, :, :, i].mean(dim=1) for i in range(values.shape[0])])
