"""The baseline of every table: cubic interpolation at the right sample positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from monai.utils import convert_to_tensor
from scipy.ndimage import map_coordinates

__all__ = ["cubic"]


@lru_cache(maxsize=16)
def _spline_matrix(size: int, factor: int, offset: float) -> torch.Tensor:
    """The cubic spline along one axis as a matrix of shape (factor * size, size), in float64.

    Prefilter, border and sampling of scipy's spline are linear in the samples and separable over the axes, so its
    answer to unit impulses is all there is to know about an axis.
    """
    positions = (np.arange(factor * size) - offset) / factor
    columns = [map_coordinates(impulse, [positions], order=3, mode="nearest") for impulse in np.eye(size)]
    return torch.from_numpy(np.stack(columns, axis=1))


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
    for axis, (factor, start) in enumerate(zip(factors, offset, strict=True), start=-3):
        matrix = _spline_matrix(volume.shape[axis], int(factor), float(start)).to(volume)
        volume = (volume.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return volume.contiguous() if isinstance(lr, torch.Tensor) else volume.numpy()
