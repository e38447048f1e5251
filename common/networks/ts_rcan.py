"""TS-RCAN: residual channel attention over thin slabs (Liu et al. 2023, fig. 3; Zhang et al. 2018 for RCAN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..degradations.base import Degradation
from .float32 import make_last_layer
from .interpolation import SlabInterpolation
from .slab import SlabEncoder, SlabSuperResolver, channels_to_slab


class RCAB(nn.Module):
    """Residual channel attention block: two convolutions, and a gain per channel from the global mean.

    Args:
        features: channels.
        reduction: ratio of ``features`` to the channels of the attention's bottleneck; at most ``features``.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        if reduction > features:
            raise ValueError(f"reduction is {reduction}, expected at most the {features} features; set reduction too.")
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.attention = nn.Sequential(
            nn.Conv2d(features, features // reduction, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features // reduction, features, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, features, H, W)`` to the same shape."""
        y = self.body(x)
        return x + y * self.attention(y.mean(dim=(2, 3), keepdim=True))


class Residual(nn.Module):
    """A chain of modules with a skip around it."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The chain's output plus its input."""
        return x + self.body(x)


class ShiftTowardsFirstPixel(nn.Module):
    """Shift an image towards its first pixel, also by fractions of a pixel, without blur.

    For a fraction, some channels shift one pixel further than the others. Their number is chosen so that the mean shift
    is right; the next convolution mixes the channels. Outside the image, its outermost pixels are repeated.

    Args:
        pixels: shift along H and W, at least 0.
    """

    def __init__(self, pixels: Sequence[float]) -> None:
        super().__init__()
        self.pixels = [float(p) for p in pixels]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, channels, H, W)`` to the same shape."""
        for axis, pixels in enumerate(self.pixels):
            whole_pixels = int(pixels)
            further = int((pixels - whole_pixels) * x.shape[1] + 0.5)
            first, second = x[:, :further], x[:, further:]
            x = torch.cat(
                [
                    _shift_towards_first(first, axis + 2, whole_pixels + 1),
                    _shift_towards_first(second, axis + 2, whole_pixels),
                ],
                dim=1,
            )
        return x


def _shift_towards_first(x: torch.Tensor, axis: int, pixels: int) -> torch.Tensor:
    # Not by padding, because its gradient on a GPU differs from run to run.
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, pixels, size - pixels)] + [x.narrow(axis, size - 1, 1)] * pixels, dim=axis)


class TSRCANDecoder(nn.Module):
    """The TS-RCAN decoder: features to a slab, upsampled or at the features' size.

    Args:
        slices: slices of the output slab.
        features: channels of the trunk and of the input features.
        groups: residual groups.
        blocks: RCAB in each group; a convolution closes each group.
        reduction: of the channel attention.
        scale: in-plane factors ``(H, W)`` of the pixel shuffle, which are equal; (1, 1) leaves the upsampler out.
        base: the global residual: a module without parameters from the input slab to a slab of the output's size,
            which is added to the output. None for no residual.
        offset: centre of feature pixel 0 in pixels of the output along H and W (``Degradation.offset``). The pixels
            that are shuffled from it are centred there. From 0 to ``(scale - 1) / 2``, where the shuffle puts them;
            None for the latter.

    Raises:
        ValueError: if the two in-plane factors differ, or an offset is negative or too large.
    """

    def __init__(
        self,
        slices: int,
        features: int = 64,
        groups: int = 5,
        blocks: int = 5,
        reduction: int = 16,
        scale: Sequence[int] = (1, 1),
        base: nn.Module | None = None,
        offset: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if scale[0] != scale[1]:
            raise ValueError(
                f"TSRCANDecoder upsamples by pixel shuffle, which needs one in-plane factor, but scale is {scale}. "
                "Choose slice_axis so that the axis with the other factor lies across the slab."
            )
        middle = (scale[0] - 1) / 2
        if offset is not None and not all(0 <= o <= middle for o in offset):
            raise ValueError(
                f"TSRCANDecoder: the offset is {offset}, expected from 0 to {middle}, the middle of the {scale[0]} "
                "pixels that are shuffled from one."
            )
        trunk = [
            Residual(*[RCAB(features, reduction) for _ in range(blocks)], nn.Conv2d(features, features, 3, padding=1))
            for _ in range(groups)
        ]
        self.head = nn.Conv2d(features, features, 3, padding=1)
        self.trunk = Residual(*trunk, nn.Conv2d(features, features, 3, padding=1))
        self.upsampler = (
            nn.Sequential(nn.Conv2d(features, features * scale[0] ** 2, 3, padding=1), nn.PixelShuffle(scale[0]))
            if scale[0] > 1
            else nn.Identity()
        )
        if offset is not None and any(o != middle for o in offset):
            self.upsampler.append(ShiftTowardsFirstPixel([middle - o for o in offset]))  # type: ignore[operator]
        self.tail = make_last_layer(base is not None, features, slices, 3, padding=1)
        self.base = base

    def forward(self, features: torch.Tensor, slab: torch.Tensor | None = None) -> torch.Tensor:
        """Features ``(B, features, H, W)`` to ``(B, 1, scale H, scale W, slices)``.

        The global residual is made from ``slab``, ``(B, 1, H, W, Z)``. It is needed only with a ``base``.
        """
        out = channels_to_slab(self.tail(self.upsampler(self.trunk(self.head(features)))))
        if self.base is not None:
            if slab is None:
                raise ValueError("a decoder with a base needs the slab as its second input, but the step gives one")
            out = out + self.base(slab)
        return out


class TSRCAN(SlabSuperResolver):
    """Encoder and SR decoder of TS-RCAN, from an LR slab to an HR slab (Liu et al. 2023, fig. 3).

    Args:
        slices: slices of the LR slab.
        degradation: from HR to LR. It gives the factors and the positions of LR pixels. None for slabs that are as fine
            as the result, which the network translates.
        features, groups, blocks, reduction: as for :class:`TSRCANDecoder`.
        residual: whether the network learns the difference from the interpolated slab, with 0 at the start. False in
            the paper.
        centred: without a residual, whether the pixels that are shuffled from a pixel are centred on it, as in the
            interpolation. False in the paper.
        slab_orientations: of :class:`~common.networks.SlabEncoder`.
    """

    def __init__(
        self,
        slices: int,
        degradation: Degradation | None = None,
        features: int = 64,
        groups: int = 5,
        blocks: int = 5,
        reduction: int = 16,
        residual: bool = True,
        centred: bool = True,
        slab_orientations: int = 1,
    ) -> None:
        factors, offset = [1, 1, 1], [0.0, 0.0]
        base: nn.Module = nn.Identity()
        if degradation is not None:
            factors, offset = list(degradation.factors), list(degradation.offset[:2])
            base = SlabInterpolation(slices, factors, degradation.offset)
        parts: dict[str, Any] = {"scale": factors[:2]}
        parts |= {"base": base} if residual else {"offset": offset if centred else None}
        super().__init__(
            SlabEncoder(slices, features, slab_orientations=slab_orientations),
            TSRCANDecoder(slices * factors[2], features, groups, blocks, reduction, **parts),
        )
        self.sizes = {"slices": slices, "features": features, "groups": groups, "blocks": blocks}
        self.sizes |= {"reduction": reduction, "residual": residual}


class TranslatedTSRCAN(nn.Sequential):
    """Two TS-RCAN in sequence: the first translates LR slabs, the second super-resolves the result.

    Args:
        slices, degradation, features, groups, blocks, reduction, residual: as for :class:`TSRCAN`.
    """

    options_of = TSRCAN
    __jit_unused_properties__ = ("translator", "super_resolver")  # TorchScript refuses their annotations

    def __init__(self, slices: int, degradation: Degradation, **sizes: Any) -> None:
        super().__init__(TSRCAN(slices, **sizes), TSRCAN(slices, degradation, **sizes))
        self.sizes = self.super_resolver.sizes

    @property
    def translator(self) -> TSRCAN:
        """From LR to LR."""
        return self[0]  # type: ignore[return-value]

    @property
    def super_resolver(self) -> TSRCAN:
        """From LR to HR."""
        return self[1]  # type: ignore[return-value]


class TSRCANDegrader(SlabSuperResolver):
    """Encoder and LR decoder of TS-RCAN, from an HR slab to an LR slab.

    Args:
        slices, degradation, features, groups, blocks, reduction: as for :class:`TSRCAN`.
        residual: whether the decoder learns the difference from ``base`` of its slab, with 0 at the start.
        base: maps the decoder's slab to an LR slab; default the identity, for an LR slab. If the degrader is called as
            one network, the decoder's slab is the HR slab.
    """

    def __init__(
        self,
        slices: int,
        degradation: Degradation,
        features: int = 64,
        groups: int = 5,
        blocks: int = 5,
        reduction: int = 16,
        residual: bool = False,
        base: nn.Module | None = None,
    ) -> None:
        (*factors, across), offset = degradation.factors, degradation.offset[:2]
        base = (base or nn.Identity()) if residual else None
        super().__init__(
            SlabEncoder(slices * across, features, stride=factors, offset=offset),
            TSRCANDecoder(slices, features, groups, blocks, reduction, base=base),
        )
