"""The baselines of tables: cubic spline interpolation at the right sample positions, and papers' bicubic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from ..geometry.spline import apply_along_axes, make_upsampling_matrix

_Volume = TypeVar("_Volume", torch.Tensor, np.ndarray)


def interpolate_cubic(lr: _Volume, factors: Sequence[float], offset: Sequence[float]) -> _Volume:
    """Interpolate an LR volume onto the HR grid by a cubic spline, each HR voxel at its own position.

    HR voxel ``j`` lies at LR coordinate ``(j - offset) / factor`` along each axis. The result equals
    ``scipy.ndimage.map_coordinates(order=3, mode="nearest")`` at these positions.

    Args:
        lr: LR volume(s) of shape (..., X, Y, Z), any units.
        factors: HR voxels per LR voxel along X, Y and Z, at least 1; where one is not whole, the size is rounded.
        offset: centre of LR voxel 0 in HR voxels along X, Y and Z: 0 after k-space truncation, ``(factor - 1) / 2``
            after block averaging (``Degradation.offset``).

    Returns:
        The volume on the HR grid, shape (..., X * factors[0], Y * factors[1], Z * factors[2]): an array if ``lr`` is
            one, else a differentiable tensor without the meta data of the LR grid.
    """
    if lr.ndim < 3:
        raise ValueError(f"cubic needs a volume of shape (..., X, Y, Z), got shape {tuple(lr.shape)}.")
    if len(factors) != 3 or any(not f >= 1 for f in factors):
        raise ValueError(f"factors must be three numbers of at least 1, got {factors}.")
    volume = convert_to_tensor(lr, track_meta=False)
    if not volume.is_floating_point():
        volume = volume.float()
    axes = zip(volume.shape[-3:], factors, offset, strict=True)
    matrices = [make_upsampling_matrix(n, round(factor * n), factor, float(start)) for n, factor, start in axes]
    volume = apply_along_axes(volume, matrices)
    return volume.contiguous() if isinstance(lr, torch.Tensor) else volume.numpy()


def interpolate_bicubic(lr: torch.Tensor, factors: Sequence[int], offset: Sequence[float]) -> torch.Tensor:
    """Interpolate the slices of an LR volume by bicubic convolution, as image libraries do.

    The kernel is Keys' with a = -0.5, as in MATLAB's ``imresize`` and Pillow (torch's own bicubic has -0.75), at pixel
    centres. It blurs more than the spline of :func:`interpolate_cubic`. At the border its weights are scaled to a sum
    of 1.

    Args:
        lr: LR volume(s) of floats, shape (..., X, Y, Z), slices along the last axis.
        factors: HR voxels per LR voxel along X, Y and Z; whole, that of Z is 1.
        offset: centre of LR voxel 0 in HR voxels: ``(factor - 1) / 2`` on each axis.

    Returns:
        The volume on the HR grid, shape (..., X * factors[0], Y * factors[1], Z).

    Source:
        Keys, Cubic convolution interpolation for digital image processing, IEEE Transactions on Acoustics, Speech and
        Signal Processing 29(6), 1981.
    """
    if factors[2] != 1 or any(abs(o - (f - 1) / 2) > 1e-6 for f, o in zip(factors, offset, strict=True)):
        raise ValueError(
            f"bicubic interpolates slices whose LR pixels are centred on blocks of HR pixels; found the factors "
            f"{list(factors)} and the offset {list(offset)}, expected 1 for Z and the offset (factor - 1) / 2, as of "
            "GaussianProfile."
        )
    slices = lr.movedim(-1, 0)
    size = [n * int(f) for n, f in zip(lr.shape[-3:-1], factors, strict=False)]
    # antialias has no effect when images are enlarged, but selects Pillow's kernel.
    slices_up = F.interpolate(slices.reshape(-1, 1, *lr.shape[-3:-1]), size=size, mode="bicubic", antialias=True)
    return slices_up.reshape(*slices.shape[:-2], *size).movedim(0, -1).contiguous()
