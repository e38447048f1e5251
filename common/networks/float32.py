"""Layers that compute in float32 even under autocast.

In bfloat16 an image has steps of 1/256 between 1/2 and 1. A network's result shows these steps if its first convolution
reads the image in bfloat16. It also shows them if the last one gives the whole image in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class ToImage(nn.Conv2d):
    """A convolution whose result is an image, in float32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        return self.convolve_in_float32(input)

    def convolve_in_float32(self, image: torch.Tensor) -> torch.Tensor:
        """The convolution without autocast."""
        if torch.jit.is_scripting():  # scripts support autocast of a constant device only
            return self._conv_forward(image, self.weight, self.bias)
        else:
            with torch.autocast(image.device.type, enabled=False):
                image = image.to(torch.promote_types(image.dtype, torch.float32))
                return self._conv_forward(image, self.weight, self.bias)


class ToValues(nn.Linear):
    """A linear layer whose result is in float32, even under autocast."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Linear``."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


class FromImage(ToImage):
    """A convolution that reads an image in float32; the result has the type that autocast gives other layers."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        features = self.convolve_in_float32(input)
        if torch.jit.is_scripting():
            return features
        else:
            device = features.device.type
            return features.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else features


def make_last_layer(residual: bool, *args: Any, **options: Any) -> nn.Conv2d:
    """The last convolution of a network: :class:`ToImage`, or for a residual one that starts at 0."""
    if not residual:
        return ToImage(*args, **options)
    layer = nn.Conv2d(*args, **options)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class InstanceNorm(nn.Module):
    """Instance norm without parameters, in float32; torch computes mean and variance in the input's type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` to the same shape and type."""
        return F.instance_norm(x if x.dtype == torch.float64 else x.float()).to(x.dtype)
