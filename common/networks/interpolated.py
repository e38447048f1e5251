"""Networks that work on an interpolated slice; the result has the same size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..degradations.base import Degradation
from ..physics.scale import get_in_plane_number
from .float32 import FromImage, InstanceNorm, ToImage, make_last_layer
from .interpolation import SlabInterpolation
from .slab import batch_to_slices, channels_to_slab, slab_to_channels, slices_to_batch


class InterpolatedNetwork(nn.Module):
    """Apply a 2-D network to an LR slice that is interpolated onto the HR grid.

    Args:
        body: maps ``(B, 1, H, W)`` to the same shape; its last convolution gives the result.
        degradation: from HR to LR, in plane only. It gives the factors and the positions of LR pixels.
        residual: whether the body learns the difference from the interpolation, with 0 at the start; if False, it
            learns the whole image.
    """

    def __init__(self, body: nn.Module, degradation: Degradation, residual: bool = True) -> None:
        super().__init__()
        get_in_plane_number(scale=list(degradation.factors))
        self.interpolation = SlabInterpolation(1, degradation.factors, degradation.offset)
        self.body, self.residual = body, residual
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


class DenseUnit(nn.Module):
    """Batch norm, ELU and a 3x3 convolution, concatenated to the input (Chen et al. 2018, ISBI, section 2.2)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(inputs), nn.ELU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def make_dense_block(growth: int, units: int) -> nn.Sequential:
    """Dense units in sequence, from ``2 growth`` channels to ``(2 + units) growth``."""
    return nn.Sequential(*(DenseUnit((2 + i) * growth, growth) for i in range(units)))


class DCSRN(nn.Sequential):
    """One densely connected block between two 3x3 convolutions (Chen et al. 2018, ISBI, fig. 2, in 2-D).

    Args:
        growth: channels that each unit adds; the first convolution has twice as many.
        units: number of units in the block.
    """

    def __init__(self, growth: int = 24, units: int = 4) -> None:
        super().__init__(
            FromImage(1, 2 * growth, 3, padding=1),
            make_dense_block(growth, units),
            ToImage((2 + units) * growth, 1, 3, padding=1),
        )
        self.sizes = {"growth": growth, "units": units}


class MDCSRN(nn.Module):
    """Several densely connected blocks, each of which sees all before it (Chen et al. 2018, MICCAI, fig. 1, in 2-D).

    The output of each block is concatenated to the outputs of all earlier blocks. A 1x1 convolution reduces them to the
    input of the next block; the last one gives the image.

    Args:
        growth: channels that each unit adds; a block's input has twice as many.
        blocks: number of blocks.
        units: number of units in each block.
    """

    def __init__(self, growth: int = 16, blocks: int = 4, units: int = 4) -> None:
        super().__init__()
        self.head = FromImage(1, 2 * growth, 3, padding=1)
        self.blocks = nn.ModuleList(make_dense_block(growth, units) for _ in range(blocks))
        # The first block's output is joined to its input, and begins with that input.
        joined = [(2 + (2 + units) * (i + 1)) * growth for i in range(blocks)]
        self.compressors = nn.ModuleList(nn.Conv2d(n, 2 * growth, 1) for n in joined[:-1])
        self.tail = ToImage(joined[-1], 1, 1)
        self.sizes = {"growth": growth, "blocks": blocks, "units": units}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to the same shape."""
        x = self.head(x)
        joined = x
        for i, block in enumerate(self.blocks):
            joined = torch.cat([joined, block(x)], dim=1)
            for k, compressor in enumerate(self.compressors):  # a scripted module list takes no index
                if k == i:
                    x = compressor(joined)
        return self.tail(joined)


class ReCNN(nn.Module):
    """3x3 convolutions with ReLU between, added to the interpolated slice (Pham et al. 2019, in 2-D).

    The last convolution starts at zero, so an untrained network gives the interpolation. The others have the
    initialisation of He et al. 2015. With torch's default, signals fade from layer to layer, and the ReLUs died.

    Args:
        guided: whether there is a guide, as a second channel.
        features: channels of every layer except the last.
        layers: number of convolutions, at least 2; 10 for 10L-ReCNN.
    """

    def __init__(self, guided: bool = True, features: int = 64, layers: int = 10) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers is {layers}, expected at least 2: the first and the last convolution.")
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


class _Block(nn.Module):
    """Two 3x3 convolutions with instance norm, PReLU and dropout between, added to their input."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            InstanceNorm(),
            nn.PReLU(),
            nn.Dropout2d(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            InstanceNorm(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ReconResNet(nn.Module):
    """Two halvings, residual blocks, two doublings, between convolutions of 7x7.

    With 64 features, 14 blocks and one channel it has 17,266,452 parameters.

    Args:
        features: channels of the first convolution; twice as many after each halving.
        blocks: residual blocks.
        dropout: probability that a block leaves a channel out, in training.
        residual: whether it learns the difference from the interpolation, with 0 at the start. False for the original,
            which learns the whole image and ends with a sigmoid.

    Source:
        Chatterjee et al., Computers in Biology and Medicine 143, 2022 (arXiv 2103.09203), and the authors' repository
        NCC1701.
    """

    def __init__(self, features: int = 64, blocks: int = 14, dropout: float = 0.2, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.sizes = {"features": features, "blocks": blocks, "residual": self.residual}
        wide = 4 * features
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), FromImage(1, features, 7)]
        layers += [InstanceNorm(), nn.PReLU()]
        for channels in (features, 2 * features):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
            layers += [InstanceNorm(), nn.PReLU()]
        layers += [_Block(wide, dropout) for _ in range(blocks)]
        for channels in (wide, wide // 2):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)]
            layers += [InstanceNorm(), nn.PReLU()]
        layers += [nn.ReflectionPad2d(3), make_last_layer(self.residual, features, 1, 7)]
        self.body = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 1, H, W)`` of any size to the same shape."""
        # Halved twice and reflected at its borders: multiples of 4, at least 16. Scripts cannot read named constants.
        height, width = image.shape[-2], image.shape[-1]
        below, beside = max(16 - height, -height % 4), max(16 - width, -width % 4)
        padded = F.pad(image, [0, beside, 0, below], mode="replicate")
        sr = self.body(padded)[..., :height, :width]
        return image + sr if self.residual else torch.sigmoid(sr)
