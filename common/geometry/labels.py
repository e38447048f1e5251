"""Bring label maps to another grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from .nearest import LEFT, compute_voxel_map, sample_nearest

_NEAR = 0.01  # relative difference of voxel sizes that are the same
_STRAIGHT = 1e-6  # voxels; axes that turn less are parallel


def resample_labels(
    labels: np.ndarray, affine: np.ndarray, size: Sequence[int], target_affine: np.ndarray
) -> np.ndarray:
    """Resample labels to another grid: each voxel gets the label with the greatest share of its volume.

    Each label's mask is interpolated linearly, and averaged over each voxel of the grid. If the grid is finer, a voxel
    of the labels may lose most of its volume to its neighbours, such as a lesion of one voxel. It then keeps all of it.
    So the same function gives the labels back on their own grid, exactly if its voxels are whole voxels of the other.

    Args:
        labels, affine: ``(X, Y, Z)``, and their affine, 4x4.
        size, target_affine: of the grid, ``(X', Y', Z')``, and its affine.

    Returns:
        Labels ``(X', Y', Z')`` of the same data type, 0 outside of the given ones.
    """
    labels_on_target = _choose_most_probable(labels, affine, size, target_affine)
    finer = (_count_voxels_across(affine, target_affine) < 1 + _NEAR).all()
    # Points half-way between two voxels belong to one of them; a voxel that is lost without them gets them too.
    for sides in (LEFT, (1, -1, -1)) if finer else ():
        lost = _choose_most_probable(labels_on_target, target_affine, labels.shape, affine) != labels
        if not lost.any():
            break
        where = sample_nearest(lost, affine, size, target_affine, sides)
        labels_on_target[where] = sample_nearest(labels, affine, size, target_affine, sides)[where]
    return labels_on_target


def _choose_most_probable(
    labels: np.ndarray, affine: np.ndarray, size: Sequence[int], target_affine: np.ndarray
) -> np.ndarray:
    """The label with the greatest share of each voxel's volume, by linear interpolation."""
    orientation = ornt_transform(
        io_orientation(affine), io_orientation(target_affine)
    )  # scipy is faster along parallel axes
    affine, labels = affine @ inv_ornt_aff(orientation, labels.shape), apply_orientation(labels, orientation)
    places = compute_voxel_map(affine, target_affine)
    # Points inside of each voxel, along its axes.
    parts = np.ceil(_count_voxels_across(affine, target_affine) - _NEAR).astype(int).clip(1)
    steps, start = places[:3, :3] / parts, places[:3, 3] + places[:3, :3] @ ((1 / parts - 1) / 2)
    straight = np.abs(steps - np.diag(np.diag(steps))).max() < _STRAIGHT
    most_probable, best = np.zeros(size, labels.dtype), np.zeros(size, np.float32)
    values, index = np.unique(labels, return_inverse=True)
    boxes = ndimage.find_objects(index.reshape(labels.shape) + 1)
    for value, box in zip(values, boxes, strict=True):
        first, last = _find_covered_box(box, places, size)
        near, n = tuple(map(slice, first, last)), (last - first).clip(0)
        shares = ndimage.affine_transform(
            (labels == value).astype(np.float32),
            np.diag(steps) if straight else steps,
            start + places[:3, :3] @ first,
            tuple(n * parts),
            order=1,
            mode="nearest",
        )
        shares = shares.reshape(n[0], parts[0], n[1], parts[1], n[2], parts[2]).mean(axis=(1, 3, 5))
        most = shares > best[near]
        most_probable[near][most], best[near][most] = value, shares[most]
    most_probable[~sample_nearest(np.ones(labels.shape, bool), affine, size, target_affine)] = 0
    return most_probable


def _count_voxels_across(affine: np.ndarray, target_affine: np.ndarray) -> np.ndarray:
    """How many voxels of ``affine`` a voxel of ``target_affine`` reaches over, along each of its axes."""
    return np.abs(np.linalg.solve(affine, target_affine)[:3, :3]).max(axis=0)


def _find_covered_box(box: Sequence[slice], places: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The first and last voxels of a grid that a box of another one, and a voxel around it, reaches."""
    corners = np.array(list(itertools.product(*((side.start - 1, side.stop) for side in box))))
    ends = np.linalg.solve(places[:3, :3], (corners - places[:3, 3]).T)
    first, last = np.floor(ends.min(axis=1) - 0.5), np.ceil(ends.max(axis=1) + 0.5) + 1
    return first.astype(int).clip(0, size), last.astype(int).clip(0, size)
