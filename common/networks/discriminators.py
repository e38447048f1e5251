"""Discriminators for slabs and for features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from .slab import slab_to_channels


class _Float32SpectralNorm(_SpectralNorm):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # on a GPU it includes products with vectors
            return super().forward(weight)


def add_spectral_norm(convolution: nn.Conv2d) -> nn.Conv2d:
    """``torch.nn.utils.parametrizations.spectral_norm``, in float32 even under autocast."""
    register_parametrization(convolution, "weight", _Float32SpectralNorm(convolution.weight))
    return convolution


def _view_as_image(x: torch.Tensor) -> torch.Tensor:
    return slab_to_channels(x) if x.ndim == 5 else x


class VGGDiscriminator(nn.Module):
    """A VGG with one verdict per image (Liu et al. 2023, fig. 3; Ledig et al. 2017, fig. 4, without batch norm).

    Each width has two 3x3 convolutions with LeakyReLU, the second with stride 2. The global mean and two dense layers
    follow.

    Args:
        channels: of the input: slices of a slab or channels of a feature map.
        widths: channels of the stages.
        dense: width of the hidden dense layer.
        layer_norm: whether the output of each convolution except the first is normalised over channels and pixels. A
            critic with a gradient penalty allows this (Gulrajani et al. 2017, section 4).
    """

    def __init__(
        self, channels: int, widths: Sequence[int] = (64, 128, 256, 512), dense: int = 1024, layer_norm: bool = False
    ) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for width in widths:
            for stride in (1, 2):
                norm = [nn.GroupNorm(1, width)] if layer_norm and body else []
                convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
                body += [convolution, *norm, nn.LeakyReLU(0.2, inplace=True)]
                channels = width
        self.body = nn.Sequential(*body)
        self.head = nn.Sequential(nn.Linear(channels, dense), nn.LeakyReLU(0.2, inplace=True), nn.Linear(dense, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A slab ``(B, 1, H, W, channels)`` or features ``(B, channels, H, W)`` to verdicts ``(B, 1)``."""
        features = self.body(_view_as_image(x))
        # A critic's verdicts may be large and differ little.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            return self.head(features.mean(dim=(2, 3)))


class PatchDiscriminator(nn.Module):
    """One verdict per small patch: a wide convolution, then 1x1 convolutions (Bell-Kligler et al. 2019, section 4).

    It sees only a few pixels at once, so it can judge blur, ringing and noise, but cannot memorise anatomy. Every layer
    is divided by its largest singular value (Miyato et al. 2018). Such layers cannot separate images that differ by a
    hundredth, so amplified detail is judged.

    Args:
        channels: of the input: slices of a slab or channels of a feature map.
        features: channels of the hidden layers.
        layers: number of 1x1 convolutions after the first layer; the last one gives the verdict.
        kernel_size: edge of the first convolution in pixels.
        detail: gain of the high-pass that is judged instead of the input: the input minus its binomial low-pass, 3x3 in
            plane and 3 across the slab; 0 judges the input itself.
        slab_orientations: number of kinds of slabs, each with a last layer of its own: 3 if any axis of a volume may
            lie across a slab.
    """

    def __init__(
        self,
        channels: int,
        features: int = 64,
        layers: int = 4,
        kernel_size: int = 7,
        detail: float = 10.0,
        slab_orientations: int = 1,
    ) -> None:
        super().__init__()
        self.detail = detail
        self.slab_orientations = slab_orientations
        row = torch.tensor([0.25, 0.5, 0.25])
        delta = torch.zeros(3, 3)
        delta[1, 1] = 1.0
        high_pass = (delta - row[:, None] * row).expand(channels, 1, 3, 3).clone()
        self.high_pass = nn.Buffer(high_pass, persistent=False)
        if detail:
            channels += channels - 2
        body: list[nn.Module] = [
            add_spectral_norm(nn.Conv2d(channels, features, kernel_size)),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for _ in range(layers - 1):
            body += [add_spectral_norm(nn.Conv2d(features, features, 1)), nn.LeakyReLU(0.2, inplace=True)]
        body.append(add_spectral_norm(nn.Conv2d(features, slab_orientations, 1)))
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor, slab_orientation: torch.Tensor | None = None) -> torch.Tensor:
        """Slabs ``(B, 1, H, W, channels)`` or features ``(B, channels, H, W)`` to verdicts ``(B, 1, H', W')``.

        With ``slab_orientations``, ``slab_orientation``, ``(B, 3)``, says which axis of the volume lies along H, W and
        Z of each slab.
        """
        image = _view_as_image(x)
        if self.detail:
            # In bfloat16 the rounding of the image would be as large as its detail.
            with torch.autocast(image.device.type, enabled=False):
                image = image.to(self.high_pass.dtype)
                in_plane = F.conv2d(image, self.high_pass, groups=image.shape[1])
                across = 0.5 * image[:, 1:-1] - 0.25 * (image[:, :-2] + image[:, 2:])
                image = self.detail * torch.cat([in_plane, across[..., 1:-1, 1:-1]], dim=1)
        verdicts = self.body(image)
        if self.slab_orientations == 1:
            return verdicts
        return verdicts.take_along_dim(slab_orientation[:, 2].view(-1, 1, 1, 1), dim=1)  # type: ignore[index]
