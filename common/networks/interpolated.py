"""Networks that work on an interpolated slice; the result has the same size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ..degradations import Degradation
from ..physics.scale import in_plane
from ..values import is_true
from .float32 import FromImage, ToImage
from .interpolation import SlabInterpolation
from .slab import channels_to_slab, slab_to_channels


class OnInterpolated(nn.Module):
    """Apply a 2-D network to an LR slice that is interpolated onto the HR grid.

    Args:
        body: maps ``(B, 1, H, W)`` to the same shape; its last convolution gives the result.
        degradation: from HR to LR. It gives the factors in plane and the positions of LR pixels.
        residual: whether the body learns the difference from the interpolation, with 0 at the start; if False, it
            learns the whole image.

    Raises:
        ValueError: if the degradation does not act in plane only.
    """

    def __init__(self, body: nn.Module, degradation: Degradation, residual: bool | str = True) -> None:
        super().__init__()
        in_plane(scale=list(degradation.factors))
        self.interpolation = SlabInterpolation(1, degradation.factors, degradation.offset)
        self.body, self.residual = body, is_true(residual, "residual")
        self.sizes = {**getattr(body, "sizes", {}), "residual": self.residual}
        if self.residual:
            last = [module for module in body.modules() if isinstance(module, nn.Conv2d)][-1]
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, 1)`` to ``(B, 1, s H, s W, 1)``."""
        base = self.interpolation(lr)
        sr = channels_to_slab(self.body(slab_to_channels(base)))
        return base + sr if self.residual else sr


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
