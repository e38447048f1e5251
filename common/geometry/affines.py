"""Order and direction of the axes of a stored volume."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import from_matvec, voxel_sizes

_AXES = {"LR": 0, "AP": 1, "SI": 2}
#: What a slice axis may be: an anatomical axis, or "auto" to find it.
SLICE_AXES = (*_AXES, "auto")
#: Thick slices are at least so many times as thick as pixels are wide, up to rounding in headers and rotated affines.
#: Smaller ratios are usual in 3-D scans without slices, for example 1.2 x 1 x 1 mm.
THICK, RATIO_ROUNDING = 1.5, 1.001
_SQUARE = 1.25  # longest over shortest side of such pixels
#: A value beyond a range by no more than this share of its end counts as inside, because headers round.
ROUNDING = 0.005


class UnclearSliceAxisError(ValueError):
    """Neither the spacing of a volume nor its file shows which axis runs across the slices."""


def find_slice_orientation(
    affine: np.ndarray | torch.Tensor, slice_axis: str | None, across: int | None = None
) -> np.ndarray:
    """Order and directions of a volume's axes that put the axis across the slices last, the others as LR, AP, SI.

    Each axis then runs to the right, anterior or superior, as nearly as possible.

    Args:
        affine: 4x4, voxel to world (RAS, mm).
        slice_axis, across: as for :func:`find_slice_permutation`.

    Returns:
        Orientation for nibabel's ``apply_orientation``, ``(3, 2)``: for each stored axis the number of the ordered
        axis, and 1, or -1 if the axis is to be mirrored.

    Raises:
        ValueError: as :func:`find_slice_permutation`.
    """
    order = find_slice_permutation(affine, slice_axis, across)
    orientation = nib.orientations.io_orientation(np.asarray(affine))
    orientation[list(order), 0] = range(3)
    return orientation


def find_slice_permutation(
    affine: np.ndarray | torch.Tensor, slice_axis: str | None, across: int | None = None
) -> tuple[int, ...]:
    """Order of a volume's axes that puts the axis across the slices last, the others in the order LR, AP, SI.

    Args:
        affine: 4x4, voxel to world (RAS, mm).
        slice_axis: anatomical axis across the slices, "LR", "AP" or "SI"; or "auto" to take it from the file, else from
            the spacing: the two axes with the most similar spacings are in plane, if they are more similar by far, and
            nearly alike where slices are the finer ones.
        across: the stored axis across the slices, as the file names it; None if it does not.

    Returns:
        Axis of the stored volume for each axis of the ordered one.

    Raises:
        UnclearSliceAxisError: when the spacing does not show the slices.
        ValueError: when ``slice_axis`` is none of the four.
    """
    if slice_axis not in SLICE_AXES:
        raise ValueError(f"slice_axis is {slice_axis!r}, expected one of {', '.join(SLICE_AXES)}.")
    world = nib.orientations.io_orientation(np.asarray(affine))[:, 0]
    if slice_axis != "auto":
        last = _AXES[slice_axis]
    else:
        last = world[_find_slice_axis(affine) if across is None else across]
    order = [axis for axis in range(3) if axis != last] + [last]
    return tuple(int(np.flatnonzero(world == axis)[0]) for axis in order)


def _find_slice_axis(affine: np.ndarray | torch.Tensor) -> int:
    """The axis of the stored volume that runs across the slices."""
    spacing = voxel_sizes(np.asarray(affine))
    in_plane = [np.delete(spacing, axis) for axis in range(3)]
    ratios = np.array([pair.max() / pair.min() for pair in in_plane])
    best, second, _ = np.sort(ratios)
    axis = int(ratios.argmin())
    is_thick = spacing[axis] == spacing.max()
    # Slices that are finer than pixels are known by pixels that are nearly squares.
    if second / best < THICK / RATIO_ROUNDING or not (is_thick or best < _SQUARE):
        raise UnclearSliceAxisError(
            f"the spacing {np.round(spacing, 3).tolist()} mm does not show which axis runs across the slices; "
            f"name it, for example --slice_axis SI ({', '.join(_AXES)}). Is this the right scan, not a guide or a "
            "thin-slice scan?"
        )
    return axis


def list_thick_axes(affine: np.ndarray | torch.Tensor) -> list[int]:
    """The stored axes that may run across thick slices: all but the finest, the coarsest first; empty if none is thick.

    Args:
        affine: 4x4, voxel to world (RAS, mm).
    """
    spacing = voxel_sizes(np.asarray(affine))
    is_thick = spacing.max() * RATIO_ROUNDING >= THICK * spacing.min()
    return np.argsort(-spacing, kind="stable")[:2].tolist() if is_thick else []


def name_axis(affine: np.ndarray | torch.Tensor, axis: int) -> str:
    """The anatomical name of a stored axis, "LR", "AP" or "SI"."""
    return list(_AXES)[int(nib.orientations.io_orientation(np.asarray(affine))[axis, 0])]


def find_orientation_on(affine: np.ndarray, target_affine: np.ndarray) -> np.ndarray:
    """Order and directions of a volume's axes that bring them nearest to those of another grid.

    Args:
        affine, target_affine: 4x4, of the volume and of the grid.

    Returns:
        Orientation for nibabel's ``apply_orientation``, ``(3, 2)``, as :func:`find_slice_orientation` gives it.
    """
    directions = [each[:3, :3] / voxel_sizes(each) for each in (affine, target_affine)]
    return nib.orientations.io_orientation(from_matvec(np.linalg.solve(directions[1], directions[0])))


def measure_factors(
    scan_affine: np.ndarray, scan_size: Sequence[int], affine: np.ndarray, size: Sequence[int]
) -> tuple[list[float], list[float]] | None:
    """How the voxels of a result lie on those of its scan.

    Args:
        scan_affine, scan_size: of the scan ``(X, Y, Z)``.
        affine, size: of the result.

    Returns:
        Voxels of the result per voxel of the scan along each axis, and where the scan's first voxel lies in voxels of
        the result. None if the two have not the same directions and field of view, or the result is coarser.
    """
    to_result = np.linalg.solve(affine, scan_affine)
    factors, offset = np.diag(to_result)[:3], to_result[:3, 3].round(3)
    rounded = np.rint(factors)
    factors = np.where(np.abs(factors - rounded) < 0.01, rounded, factors)
    is_turned = not np.allclose(to_result[:3, :3], np.diag(factors), atol=0.01)
    is_apart = (offset < -0.1).any() or (offset > factors - 0.9).any()  # of the result's first voxels
    expected = tuple(round(n * f) for n, f in zip(scan_size, factors.tolist(), strict=True))
    if is_turned or is_apart or factors.min() < 1 or tuple(size) != expected:
        return None
    return factors.tolist(), offset.tolist()
