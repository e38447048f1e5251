"""The very deep convolutional network for super-resolution."""

from itertools import pairwise

from torch import nn


class VDSR(nn.Sequential):
    """3x3 convolutions with ReLU between on an interpolated slice (Kim et al. 2016, section 3.1).

    Args:
        features: channels between the convolutions.
        layers: number of convolutions, at least 2.

    Raises:
        ValueError: for fewer layers.
    """

    def __init__(self, features: int = 64, layers: int = 20) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers is {layers}, expected at least 2.")
        channels = [1, *[features] * (layers - 1), 1]
        for a, b in pairwise(channels):
            convolution = nn.Conv2d(a, b, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            self.extend([convolution, nn.ReLU()])
        self.pop(-1)
        self.sizes = {"features": features, "layers": layers}
