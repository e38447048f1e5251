"""Interpolation at the right sample positions, as fixed networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from ..degradations.base import Degradation
from ..geometry.spline import apply_along_axes, evaluate_keys_cubic, make_upsampling_matrix
from .slab import channels_to_slab, slab_to_channels


def _compute_quadratic_weights(position: float, slices: int) -> torch.Tensor:
    """Weights ``(slices,)`` of the parabola through the three slices nearest to ``position``."""
    position = min(max(position, 0.0), slices - 1.0)
    first = min(max(round(position) - 1, 0), slices - 3)
    nodes = range(first, first + 3)
    weights = torch.zeros(slices)
    for i in nodes:
        weights[i] = math.prod((position - j) / (i - j) for j in nodes if j != i)
    return weights


class _Interpolation(nn.Module):
    """A fixed network that computes in float32 even under autocast, because a discriminator of detail sees rounding."""

    interpolate: Callable[[torch.Tensor], torch.Tensor]

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """Apply :meth:`interpolate` to an LR image or slab, in float32."""
        if torch.jit.is_scripting():  # scripts support autocast of a constant device only
            return self.interpolate(lr)
        else:
            with torch.autocast(lr.device.type, enabled=False):
                return self.interpolate(lr.to(torch.promote_types(lr.dtype, torch.float32)))


class SlabInterpolation(_Interpolation):
    """Cubic interpolation of an LR slab onto the HR slab's grid; no parameters.

    HR voxel ``j`` of an axis lies at LR coordinate ``(j - offset) / scale``. In plane this is Keys' cubic convolution
    (a = -1/2). Across the slab it is the parabola through the nearest three slices. At even scales, two slabs share an
    output slice half-way between their centres, and the mean of the two parabolas is Keys' cubic again. Positions
    outside the slab take the value of its outermost slice.

    Args:
        slices: slices of the LR slab, at least 3; or 1, if the factor across is 1.
        scale: factors ``(H, W, Z)``.
        offset: centre of LR voxel 0 in HR voxels, per axis: 0 for k-space truncation, ``(scale - 1) / 2`` for
            block averages (``Degradation.offset``).

    Raises:
        ValueError: if there are too few slices, or the in-plane factors or offsets differ.
    """

    def __init__(self, slices: int, scale: Sequence[int], offset: Sequence[float]) -> None:
        super().__init__()
        if slices < 3 and (slices, scale[2]) != (1, 1):
            raise ValueError(f"SlabInterpolation needs a slab of at least 3 slices, got {slices}.")
        if scale[0] != scale[1] or offset[0] != offset[1]:
            raise ValueError(
                f"SlabInterpolation needs the same in-plane factors and offsets, got {scale} and {offset}."
            )
        self.scale = int(scale[0])
        taps = torch.arange(-2, 3, dtype=torch.float64)
        phases = torch.stack([evaluate_keys_cubic((p - offset[0]) / scale[0] - taps) for p in range(scale[0])])
        kernel = torch.einsum("ai,bj->abij", phases, phases).reshape(-1, 1, 5, 5)
        positions = [(o - offset[2]) / scale[2] for o in range(slices * scale[2])]
        across = (
            torch.ones(1, 1) if slices == 1 else torch.stack([_compute_quadratic_weights(p, slices) for p in positions])
        )
        # Saved with the weights, which are valid only with the interpolation that they were trained on.
        self.in_plane = nn.Buffer(kernel.float())
        self.across = nn.Buffer(across)

    def interpolate(self, slab: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, slices)`` to ``(B, 1, s H, s W, sz slices)``."""
        x = slab_to_channels(slab)
        x = torch.einsum("oz,bzhw->bohw", self.across.to(x.dtype), x)
        b, z, h, w = x.shape
        x = F.pad(x.reshape(b * z, 1, h, w), (2, 2, 2, 2), mode="replicate")
        x = F.pixel_shuffle(F.conv2d(x, self.in_plane.to(x.dtype)), self.scale)
        return channels_to_slab(x.reshape(b, z, h * self.scale, w * self.scale))


class AxisInterpolation(_Interpolation):
    """Keys' cubic convolution (a = -1/2) of images along their last axis; no parameters.

    HR column ``j`` lies at LR coordinate ``(j - offset) / factor``. Beyond the edges, the outermost columns are
    repeated.

    Args:
        factor: HR columns per LR column.
        offset: centre of LR column 0 in HR columns (``Degradation.offset`` of the axis), from 0 to ``factor``.
    """

    def __init__(self, factor: int, offset: float) -> None:
        super().__init__()
        taps = torch.arange(-2, 3, dtype=torch.float64)
        phases = torch.stack([evaluate_keys_cubic((p - offset) / factor - taps) for p in range(factor)])
        # Saved with the weights, which are valid only with the interpolation that they were trained on.
        self.phases = nn.Buffer(phases[:, None, None].float())

    def interpolate(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, 1, H, factor W)``."""
        columns = F.conv2d(F.pad(lr, (2, 2, 0, 0), mode="replicate"), self.phases.to(lr.dtype))
        return columns.permute(0, 2, 3, 1).reshape(lr.shape[0], 1, lr.shape[2], -1)


class AxisResampling(_Interpolation):
    """Keys' cubic convolution (a = -1/2) of images along their last axis by any factor; no parameters.

    HR column ``j`` lies at LR coordinate ``(j - offset) / factor``. Beyond the edges, the outermost columns are
    repeated. :class:`AxisInterpolation` is the same for whole factors, and faster.

    Args:
        factor: HR columns per LR column, not necessarily whole.
        offset: centre of LR column 0 in HR columns (``Degradation.offset`` of the axis).
        columns: of the input per LR column, which they divide evenly, such as those of a pixel shuffle.
    """

    def __init__(self, factor: float, offset: float, columns: int = 1) -> None:
        super().__init__()
        self.factor, self.offset, self.columns = float(factor), float(offset), columns

    def interpolate(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, columns W)`` to ``(B, C, H, factor W)``, rounded as ``Degradation.compute_hr_size`` does."""
        width = lr.shape[-1]
        count = math.floor(width // self.columns * self.factor + 0.5)
        # In float64: in float32 an error of 1e-5 columns would be seen at the end of long axes.
        places = (torch.arange(count, device=lr.device, dtype=torch.float64) - self.offset) / self.factor
        places = self.columns * places + (self.columns - 1) / 2
        nearest = places.floor()
        hr = torch.zeros(1, device=lr.device, dtype=lr.dtype)
        for tap in range(-1, 3):
            weight = evaluate_keys_cubic(places - nearest - tap).to(lr.dtype)
            hr = hr + weight * lr.index_select(-1, (nearest + tap).clamp(0, width - 1).long())
        return hr


class SplineInterpolation(nn.Module):
    """Cubic spline interpolation of LR volumes or patches onto an HR grid, without a margin on every side.

    HR voxel ``j`` of an axis lies at LR coordinate ``(j - offset) / factor``. The margin holds the HR voxels that the
    borders of the LR patch affect. No parameters.

    Args:
        factors: HR voxels per LR voxel along each of the last three axes, at least 1, not necessarily whole.
        offset: centre of LR voxel 0 in HR voxels, per axis (``Degradation.offset``).
        size: voxels of the HR grid along each axis, with the margin.
        margin: HR voxels that are cut off at each end of each axis.
    """

    def __init__(
        self, factors: Sequence[float], offset: Sequence[float], size: Sequence[int], margin: Sequence[int]
    ) -> None:
        super().__init__()
        self.factors, self.offset = tuple(factors), tuple(offset)
        self.size, self.margin = tuple(size), tuple(margin)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(..., x, y, z)`` to the HR size without the margin at both ends of each axis."""
        axes = zip(lr.shape[-3:], self.size, self.factors, self.offset, self.margin, strict=True)
        # LR samples in the margin are read; only the margin's rows of the matrix are left out.
        return apply_along_axes(lr, [_make_rows(n, size, f, o, m) for n, size, f, o, m in axes])


def make_patch_interpolation(degradation: Degradation, hr_patch: int, margin: int) -> SplineInterpolation:
    """Spline interpolation of LR patches of slices onto their HR patches.

    Args:
        degradation: from HR to LR, in plane only.
        hr_patch: edge of the result in HR pixels.
        margin: HR pixels around the result that the LR patch covers too.
    """
    edge = hr_patch + 2 * margin
    return SplineInterpolation(degradation.factors, degradation.offset, (edge, edge, 1), (margin, margin, 0))


@lru_cache(maxsize=64)
def _make_rows(lr_size: int, hr_size: int, factor: float, offset: float, margin: int) -> torch.Tensor:
    return make_upsampling_matrix(lr_size, hr_size, factor, offset)[margin : hr_size - margin]


class SliceGains(nn.Module):
    """Change the brightness of thick slices, and of thin slices by interpolated gains; no parameters.

    A network that is trained on such pairs does not sharpen features of a single thick slice.

    Args:
        degradation: from thin to thick slices, along the last axis; it gives their positions.
        dark: value of images where there is no signal.
    """

    def __init__(self, degradation: Degradation, dark: float = -1.0) -> None:
        super().__init__()
        self.factor, self.dark = degradation.factors[2], dark
        self.interpolation = AxisInterpolation(self.factor, degradation.offset[2])

    def forward(self, images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 1, p, w)`` or ``(B, 1, p, factor w)``, each slice times its gain.

        ``gains``, ``(B, 1, 1, w)``, are those of thick slices, near 1. Those of thin slices are interpolated.
        """
        if images.shape[-1] != gains.shape[-1]:
            gains = self.interpolation(gains)
        return images * gains + self.dark * (1 - gains)
