"""A plain residual network on interpolated slices, with or without a guide (Pham et al. 2019)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ..values import is_true
from .float32 import FromImage
from .slab import batch_to_slices, slices_to_batch


class ReCNN(nn.Module):
    """3x3 convolutions with ReLU between, added to the interpolated slice (Pham et al. 2019, in 2-D).

    The last convolution starts at zero, so an untrained network gives the interpolation. The others have the
    initialisation of He et al. 2015. With torch's default, signals fade from layer to layer, and the ReLUs died.

    Args:
        guided: whether there is a guide, as a second channel.
        features: channels of every layer except the last.
        layers: number of convolutions, at least 2; 10 for 10L-ReCNN.

    Raises:
        ValueError: if there are fewer layers.
    """

    def __init__(self, guided: bool | str = True, features: int = 64, layers: int = 10) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers is {layers}, expected at least 2: the first and the last convolution.")
        guided = is_true(guided, "guided")
        self.sizes = {"features": features, "layers": layers}
        widths = [1 + guided, *[features] * (layers - 1), 1]
        self.body = nn.Sequential()
        for a, b in pairwise(widths):
            convolution = nn.Conv2d if self.body else FromImage
            self.body.extend([convolution(a, b, 3, padding=1), nn.ReLU(inplace=True)])
        self.body.pop(-1)
        body: Any = self.body
        for layer in body[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(body[-1].weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Interpolated LR and guide, ``(B, 2, H, W, Z)``, or LR only, ``(B, 1, H, W, Z)``, to ``(B, 1, H, W, Z)``."""
        planes = slices_to_batch(image)
        sr = planes[:, :1] + self.body(planes)
        return batch_to_slices(sr, image.shape[0])
