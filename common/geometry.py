"""Which way the axes of a stored volume run."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch

_AXES = {"LR": 0, "AP": 1, "SI": 2}


def slice_permutation(affine: np.ndarray | torch.Tensor, slice_axis: str) -> tuple[int, int, int]:
    """Order of a volume's axes that puts the axis across the slices last, the others in the order LR, AP, SI.

    Args:
        affine: 4x4, voxel to world (RAS, mm).
        slice_axis: anatomical axis across the slices, "LR", "AP" or "SI"; or "auto", as the spacing
            shows it: the two axes whose spacings are most alike are in plane.

    Returns:
        Axis of the stored volume for each axis of the ordered one.

    Raises:
        ValueError: when ``slice_axis`` is none of the four, or the spacing does not tell the slices.
    """
    if slice_axis not in (*_AXES, "auto"):
        raise ValueError(f"slice_axis is {slice_axis!r}, expected one of {', '.join(_AXES)}, auto.")
    world = nib.orientations.io_orientation(np.asarray(affine))[:, 0]
    across = world[_axis_across(affine)] if slice_axis == "auto" else _AXES[slice_axis]
    order = [axis for axis in range(3) if axis != across] + [across]
    return tuple(int(np.flatnonzero(world == axis)[0]) for axis in order)


def _axis_across(affine: np.ndarray | torch.Tensor) -> int:
    """The axis of the stored volume that runs across the slices."""
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    in_plane = [np.delete(spacing, axis) for axis in range(3)]
    ratios = np.array([pair.max() / pair.min() for pair in in_plane])
    best, second, _ = np.sort(ratios)
    # In-plane spacings that differ by some percent are still in plane, and thin slices may be nearly isotropic.
    if second / best < 1.1:
        raise ValueError(
            f"the spacing {np.round(spacing, 3).tolist()} mm does not tell which axis runs across the slices; say "
            f"it, for example --slice_axis SI ({', '.join(_AXES)}). Is it the scan that was meant, not a guide or a "
            "thin-slice scan?"
        )
    return int(ratios.argmin())
