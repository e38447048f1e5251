"""The first convolutional network for super-resolution."""

from collections.abc import Sequence

from torch import nn

from .float32 import FromImage, ToImage


class SRCNN(nn.Sequential):
    """Convolutions with ReLU between on an interpolated slice (Dong et al. 2016, section 3.1).

    Args:
        kernels: edges of the convolutions' kernels, odd.
        features: channels after each convolution except the last: one number fewer than ``kernels``.

    Raises:
        ValueError: if the numbers do not fit.
    """

    def __init__(self, features: list[int], kernels: Sequence[int] = (9, 1, 5)) -> None:
        super().__init__()
        if len(kernels) != len(features) + 1:
            raise ValueError(f"kernels is {kernels}, expected one number more than features, {features}.")
        layers = [FromImage, *[nn.Conv2d] * (len(features) - 1), ToImage]
        for layer, size, a, b in zip(layers, kernels, [1, *features], [*features, 1], strict=True):
            self.extend([layer(a, b, size, padding=size // 2, padding_mode="replicate"), nn.ReLU()])
        self.pop(-1)
        self.sizes = {"features": features}
