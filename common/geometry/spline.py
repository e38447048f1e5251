"""Cubic interpolation along one axis: splines as a matrix, and Keys' kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from ..runtime.memory import move_to_device


def evaluate_keys_cubic(x: torch.Tensor) -> torch.Tensor:
    """The cubic convolution kernel with a = -1/2 (Keys 1981, eq. 15)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def make_spline_matrix(size: int, positions: np.ndarray) -> np.ndarray:
    """The cubic spline through N = ``size`` samples, evaluated at positions ``(M,)``, as a matrix (M, N) in float64.

    This is scipy's ``map_coordinates(order=3, mode="nearest")``, which is linear in the samples and separable over the
    axes. So its responses to unit impulses give the matrix of an axis.
    """
    columns = [map_coordinates(impulse, [positions], order=3, mode="nearest") for impulse in np.eye(size)]
    matrix = np.stack(columns, axis=1)
    # The filter's tails end in numbers so small that processors need a hundred times as long for each.
    matrix[np.abs(matrix) < 1e-20] = 0
    return matrix


@lru_cache(maxsize=64)
def make_upsampling_matrix(lr_size: int, hr_size: int, factor: float, offset: float) -> torch.Tensor:
    """From LR samples to HR samples, (hr_size, lr_size): HR sample j lies at LR coordinate (j - offset) / factor."""
    return torch.from_numpy(make_spline_matrix(lr_size, (np.arange(hr_size) - offset) / factor))


def apply_along_axes(
    volume: torch.Tensor, matrices: Sequence[torch.Tensor | None], transposed: bool = False
) -> torch.Tensor:
    """Multiply each of the last axes of a tensor by its matrix; an axis whose matrix is None stays as it is.

    Args:
        volume: ``(..., X, Y, Z)`` for three matrices.
        matrices: for each axis, a matrix (new size, size). It must be constant, because its copy on the volume's
            device is cached.
        transposed: whether to multiply by the transposes, (size, new size).
    """
    # Under autocast the products would lose 16 of 24 bits.
    with torch.autocast(volume.device.type, enabled=False):
        for dim, matrix in enumerate(matrices, start=-len(matrices)):
            if matrix is not None:
                held = _copy_matrix_to_device(matrix, volume.dtype, volume.device)
                volume = (volume.movedim(dim, -1) @ (held if transposed else held.T)).movedim(-1, dim)
    return volume


@lru_cache(maxsize=64)
def _copy_matrix_to_device(matrix: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # The key is the tensor object, not its values. Training may need it after inference, which has no autograd.
    with torch.inference_mode(False):
        return move_to_device(matrix.to(dtype), device)
