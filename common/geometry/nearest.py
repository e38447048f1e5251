"""Sample volumes at the voxels that are nearest to those of another grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

_TIE = 1e-3  # voxels by which points are moved, so that none lies half-way between two voxels
LEFT = (-1, -1, -1)


def sample_nearest(
    volume: np.ndarray, affine: np.ndarray, size: Sequence[int], target_affine: np.ndarray, sides: Sequence[int] = LEFT
) -> np.ndarray:
    """Sample a volume at its nearest voxels; 0 outside of it.

    Args:
        volume, affine: ``(X, Y, Z)``, and its affine in mm.
        size, target_affine: of the other grid.
        sides: to which side a point goes that lies half-way between two voxels: -1 for left, posterior and inferior, 1
            for the other side.
    """
    if not volume.any():
        return np.zeros(size, volume.dtype)
    places = compute_voxel_map(affine, target_affine, sides)
    options: dict[str, Any] = {"order": 0, "mode": "grid-constant"}
    return ndimage.affine_transform(volume, places[:3, :3], places[:3, 3], tuple(size), **options)


def compute_voxel_map(affine: np.ndarray, target_affine: np.ndarray, sides: Sequence[int] = LEFT) -> np.ndarray:
    """Matrix from voxels of ``target_affine`` to voxels of ``affine``; ties go to these sides of the world."""
    size = voxel_sizes(affine).min()
    shifted = np.array(target_affine, dtype=np.float64)
    shifted[:3, 3] += _TIE * size * np.array(sides)
    return np.linalg.solve(np.asarray(affine, dtype=np.float64), shifted)
