"""Find a volume that is there twice: as a DICOM series and as the file that a converter made of it."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

_PLACE = 0.02  # mm, by which converters round affines
_VALUE = 1e-3  # of the range, by which they round values


def is_same_volume(first: Any, second: Any) -> bool:
    """Whether two images have the same voxels at the same places, in any order and direction of their axes.

    Args:
        first, second: opened images; None for one that cannot be opened. Voxels are read only if the grids agree.
    """
    if first is None or second is None:
        return False
    orders, grids = [], []
    for image in (first, second):
        if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-12 or len(image.shape) < 3:
            return False
        order = nib.io_orientation(image.affine)
        size = tuple(np.array(image.shape[:3])[np.argsort(order[:, 0])])
        orders.append(order)
        grids.append((size, image.shape[3:], image.affine @ nib.orientations.inv_ornt_aff(order, image.shape[:3])))
    if grids[0][:2] != grids[1][:2] or np.abs(grids[0][2] - grids[1][2]).max() > _PLACE:
        return False
    try:
        one, other = (
            nib.apply_orientation(np.asanyarray(image.dataobj), order).astype(np.float32)
            for image, order in zip((first, second), orders, strict=True)
        )
    except Exception:  # a file that cannot be read is reported when it is loaded
        return False
    return bool(np.abs(one - other).max() <= _VALUE * np.ptp(one))
