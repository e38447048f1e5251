"""TS-RCAN: residual channel attention over thin slabs (Liu et al. 2023, fig. 3; Zhang et al. 2018 for RCAN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..degradations import Degradation
from ..values import is_true
from .float32 import ToImage
from .interpolation import SlabInterpolation
from .slab import SlabEncoder, SlabSuperResolver, channels_to_slab


class RCAB(nn.Module):
    """Residual channel attention block: two convolutions, and a gain a channel from the global mean.

    Args:
        features: channels.
        reduction: ratio by which the attention's bottleneck is narrower; ``features`` must be at least that.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        if reduction > features:
            raise ValueError(f"reduction is {reduction}, expected at most the {features} features; set it too.")
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
        """``(B, features, H, W)`` to the same."""
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


class Earlier(nn.Module):
    """Moves an image towards its first pixel by a fraction of one too, without blurring it.

    By a fraction, some channels move one pixel further than the others, so many that the mean over the channels is
    right; the convolution that follows mixes them. Outside the image its outermost pixels are repeated.

    Args:
        pixels: along H and W, not negative.
    """

    def __init__(self, pixels: Sequence[float]) -> None:
        super().__init__()
        self.pixels = [float(p) for p in pixels]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, channels, H, W)`` to the same."""
        for axis, pixels in enumerate(self.pixels):
            whole = int(pixels)
            further = int((pixels - whole) * x.shape[1] + 0.5)
            first, second = x[:, :further], x[:, further:]
            x = torch.cat([_earlier(first, axis + 2, whole + 1), _earlier(second, axis + 2, whole)], dim=1)
        return x


def _earlier(x: torch.Tensor, axis: int, pixels: int) -> torch.Tensor:
    # Not by padding, whose gradient is not the same from run to run on a GPU.
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, pixels, size - pixels)] + [x.narrow(axis, size - 1, 1)] * pixels, dim=axis)


class TSRCANDecoder(nn.Module):
    """The TS-RCAN decoder: features to a slab, upsampled or at the features' size.

    Args:
        slices: slices of the slab that comes out.
        features: channels of the trunk, and of the features that come in.
        groups: residual groups.
        blocks: RCAB in each group; a convolution closes each group.
        reduction: of the channel attention.
        scale: in-plane factors ``(H, W)`` of the pixel shuffle, which are equal; (1, 1) leaves the upsampler out.
        base: None, or a module that maps the slab the features came from to a slab of the output's size, which
            is added to the output: the global residual. It has no parameters of its own.
        offset: centre of feature pixel 0 in pixels of the output along H and W (``Degradation.offset``), on which the
            pixels that are shuffled from it are centred; None leaves them where the shuffle puts them, on
            ``(scale - 1) / 2``. At most that.

    Raises:
        ValueError: when the two in-plane factors differ, or an offset is negative or too large.
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
                "Order the axes so that the axis with the other factor is the slab's (slice_axis)."
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
            self.upsampler.append(Earlier([middle - o for o in offset]))  # type: ignore[operator]
        self.tail = (ToImage if base is None else nn.Conv2d)(features, slices, 3, padding=1)
        self.base = base
        if base is not None:
            # The output starts as the interpolation, and training has the detail left to learn.
            for parameter in self.tail.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: torch.Tensor, slab: torch.Tensor | None = None) -> torch.Tensor:
        """Features ``(B, features, H, W)`` to ``(B, 1, scale H, scale W, slices)``.

        Of ``slab``, ``(B, 1, H, W, Z)``, the global residual is made; it is needed and read only with a ``base``.

        Raises:
            ValueError: when the decoder has a ``base`` and no slab is given.
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
        degradation: from HR to LR: which factors the network has, and where LR pixels lie; None for slabs that are as
            fine as the result, which the network translates.
        features: channels of every layer.
        groups, blocks, reduction: of :class:`TSRCANDecoder`.
        residual: whether the network learns what the interpolated slab misses, beginning with nothing; the paper has
            False, and then what is shuffled from a pixel is centred on it, as the interpolation is.
        turns: of :class:`~common.networks.SlabEncoder`.
    """

    def __init__(
        self,
        slices: int,
        degradation: Degradation | None = None,
        features: int = 64,
        groups: int = 5,
        blocks: int = 5,
        reduction: int = 16,
        residual: bool | str = True,
        turns: int = 1,
    ) -> None:
        residual = is_true(residual, "residual")
        factors, offset = [1, 1, 1], [0.0, 0.0]
        base: nn.Module = nn.Identity()
        if degradation is not None:
            factors, offset = list(degradation.factors), list(degradation.offset[:2])
            base = SlabInterpolation(slices, factors, degradation.offset)
        parts: dict[str, Any] = {"scale": factors[:2]} | ({"base": base} if residual else {"offset": offset})
        super().__init__(
            SlabEncoder(slices, features, turns=turns),
            TSRCANDecoder(slices * factors[2], features, groups, blocks, reduction, **parts),
        )
        self.sizes = {"slices": slices, "features": features, "groups": groups, "blocks": blocks}
        self.sizes |= {"reduction": reduction, "residual": residual}


class TranslatedTSRCAN(nn.Sequential):
    """Two TS-RCAN in turn: one that translates LR slabs, and one that super-resolves what that gives.

    Args:
        slices, degradation, features, groups, blocks, reduction, residual: as for :class:`TSRCAN`.
    """

    options_of = TSRCAN

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
        slices: slices of the LR slab.
        degradation: from HR to LR: which factors the network has, and where LR pixels lie.
        features: channels of every layer.
        groups, blocks, reduction: of :class:`TSRCANDecoder`.
        residual: whether the decoder adds what ``base`` makes of the slab that it is given, beginning with nothing.
        base: to an LR slab; default the identity, of an LR slab. As one network the degrader gives it the HR slab.
    """

    def __init__(
        self,
        slices: int,
        degradation: Degradation,
        features: int = 64,
        groups: int = 5,
        blocks: int = 5,
        reduction: int = 16,
        residual: bool | str = False,
        base: nn.Module | None = None,
    ) -> None:
        (*factors, across), offset = degradation.factors, degradation.offset[:2]
        base = (base or nn.Identity()) if is_true(residual, "residual") else None
        super().__init__(
            SlabEncoder(slices * across, features, stride=factors, offset=offset),
            TSRCANDecoder(slices, features, groups, blocks, reduction, base=base),
        )
