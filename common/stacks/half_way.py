"""The grid half way between two volumes, on which interpolation blurs both alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import sqrtm


def find_half_way(
    first: np.ndarray, second: np.ndarray, size: Sequence[int], motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Find the places of a grid's voxels in two volumes.

    The matrix :math:`T = N T'` leads from voxels of the second volume to those of the first; N is a shift by whole
    voxels. The grid has the second's size. Its voxels lie at :math:`N T'^{1/2}` in the first and at
    :math:`T'^{-1/2}` in the second: moved by half the motion each, in opposite directions.

    Args:
        first, second: affines of the volumes in mm, with axes in the same order and directions.
        size: of the second volume ``(X, Y, Z)``.
        motion: (4, 4) in mm, of the second volume onto the first.

    Returns:
        Matrices (4, 4) from voxels of the grid to voxels of the first volume and of the second.
    """
    turned = np.linalg.inv(first) @ motion @ second
    middle = np.array([*(np.asarray(size) - 1) / 2, 1.0])
    whole = np.eye(4)
    whole[:3, 3] = np.rint((turned @ middle - middle)[:3])
    half = np.real(sqrtm(np.linalg.inv(whole) @ turned))
    return whole @ half, np.linalg.inv(half)
