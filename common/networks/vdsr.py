"""The very deep convolutional network for super-resolution."""

from itertools import pairwise
from typing import Any

from torch import nn

from .float32 import FromImage, ToImage


class VDSR(nn.Sequential):
    """3x3 convolutions with ReLU between on an interpolated slice (Kim et al. 2016, section 3.1).

    Args:
        features: channels between the convolutions.
        layers: number of convolutions, at least 2.

    Raises:
        ValueError: if there are fewer layers.
    """

    def __init__(self, features: int = 64, layers: int = 20) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers is {layers}, expected at least 2.")
        channels = [1, *[features] * (layers - 1), 1]
        kinds = [FromImage, *[nn.Conv2d] * (layers - 2), ToImage]
        for kind, (a, b) in zip(kinds, pairwise(channels), strict=True):
            convolution: Any = kind(a, b, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            self.extend([convolution, nn.ReLU()])
        self.pop(-1)
        self.sizes = {"features": features, "layers": layers}
