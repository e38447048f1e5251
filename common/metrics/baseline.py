"""The baseline of every table: cubic interpolation at the right sample positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.utils import convert_to_tensor

from ..spline import apply_along, upsampling_matrix

__all__ = ["cubic"]


def cubic(lr: torch.Tensor | np.ndarray, factors: Sequence[int], offset: Sequence[float]) -> torch.Tensor | np.ndarray:
    """Interpolate an LR volume onto the HR grid by a cubic spline, each HR voxel at its own position.

    HR voxel ``j`` lies at LR coordinate ``(j - offset) / factor`` along each axis. The result equals
    ``scipy.ndimage.map_coordinates(order=3, mode="nearest")`` at these positions.

    Args:
        lr: LR volume(s) of shape (..., X, Y, Z), any units. Integers are taken as float32.
        factors: HR voxels per LR voxel along X, Y and Z.
        offset: centre of LR voxel 0 in HR voxels along X, Y and Z: 0 after k-space truncation, ``(factor - 1) / 2``
            after block averaging (``Degradation.offset``).

    Returns:
        The volume on the HR grid, shape (..., X * factors[0], Y * factors[1], Z * factors[2]): an array if ``lr`` is
        one, else a tensor on its device, differentiable, and without the meta data, which is the LR grid's.

    Raises:
        ValueError: When ``lr`` has fewer than three dimensions, ``factors`` or ``offset`` are not three, or a factor is
            not a positive integer.
    """
    if lr.ndim < 3:
        raise ValueError(f"cubic needs a volume of shape (..., X, Y, Z), got shape {tuple(lr.shape)}.")
    if len(factors) != 3 or any(f != int(f) or f < 1 for f in factors):
        raise ValueError(f"factors must be three positive integers, got {factors}.")
    volume = convert_to_tensor(lr, track_meta=False)
    if not volume.is_floating_point():
        volume = volume.float()
    axes = zip(volume.shape[-3:], factors, offset, strict=True)
    matrices = [upsampling_matrix(n, int(factor) * n, int(factor), float(start)) for n, factor, start in axes]
    volume = apply_along(volume, matrices)
    return volume.contiguous() if isinstance(lr, torch.Tensor) else volume.numpy()
