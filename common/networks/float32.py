"""Layers that compute in float32 under autocast too.

In bfloat16 an image has steps of 1/256 between 1/2 and 1. What a network makes of it shows them where the first
convolution reads the image so, and where a network that learns all of the image ends in them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ToImage(nn.Conv2d):
    """A convolution whose result is an image, in float32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        return self.in_float32(input)

    def in_float32(self, image: torch.Tensor) -> torch.Tensor:
        """The convolution without autocast."""
        if torch.jit.is_scripting():  # which knows no autocast but of a constant device
            return self._conv_forward(image, self.weight, self.bias)
        else:
            with torch.autocast(image.device.type, enabled=False):
                image = image.to(torch.promote_types(image.dtype, torch.float32))
                return self._conv_forward(image, self.weight, self.bias)


class FromImage(ToImage):
    """A convolution of an image, which is read as float32; the result has the type that autocast gives others."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        features = self.in_float32(input)
        if torch.jit.is_scripting():
            return features
        else:
            device = features.device.type
            return features.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else features


class InstanceNorm(nn.Module):
    """Instance norm without parameters; torch's would have mean and variance in the type of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` to the same, in the type that it has."""
        return F.instance_norm(x if x.dtype == torch.float64 else x.float()).to(x.dtype)
