"""Bring label maps to the grid of another image."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import SpatialImage
from scipy import ndimage

from ..geometry.resampling import compute_voxel_map, sample_nearest
from ..io.dicom_series.signature import is_dicom
from ..io.images import open_image, open_image_or_none
from ..io.naming import make_case_stem, make_label_path
from ..io.nifti_affines import make_image
from ..io.writing import write_atomically
from .scan.check import CheckHeaderd, describe_labels

_TIE = 1e-3  # voxels by which points are moved, so that none lies half-way between two voxels
_LEFT, _RIGHT = (-1, -1, -1), (1, -1, -1)
_NEAR = 0.01  # relative difference of voxel sizes that are the same
_MANY = 50  # labels; only more are compared with their neighbours
_STRAIGHT = 1e-6  # voxels; axes that turn less are parallel
_POINTS, _WHOLE = 64, 0.99  # along each axis, and the share of them that a label map of the whole scan covers


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read the labels ``(X, Y, Z)`` of a file in any format, in its data type, or int32 if it scales its voxels.

    Raises:
        FileNotFoundError, ValueError: when it cannot be read or is no label map.
    """
    if Path(path).is_file() and is_dicom(path):
        raise ValueError(f"{path}: it is DICOM, expected a label map in another format; convert it to NIfTI.")
    image = open_image(path)
    if set(image.shape[3:]) - {1}:
        raise ValueError(
            f"{path}: its shape is {image.shape}, expected one label per voxel; if it holds the probability of each "
            "label, write the number of the most probable one."
        )
    CheckHeaderd("label_map")({"label_map": path})
    voxels = np.asanyarray(image.dataobj).reshape(image.shape[:3])
    is_whole = np.isfinite(voxels) & (voxels == np.rint(voxels))
    if not is_whole.all():
        raise ValueError(
            f"{path}: {np.sum(~is_whole)} of {is_whole.size} voxels are no whole numbers, such as "
            f"{voxels[~is_whole][0]:g}, expected labels; if it holds probabilities, set a threshold first."
        )
    count = len(np.unique(voxels))
    if count > _MANY and describe_labels(voxels[None]) is None:
        raise ValueError(
            f"{path}: it has {count} different values, and neighbours are rarely equal, as in a scan; expected labels."
        )
    stored = image.get_data_dtype().newbyteorder("=")
    return voxels.astype(stored if getattr(image.dataobj, "slope", 1) == 1 else np.int32)


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
    for sides in (_LEFT, _RIGHT) if finer else ():
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


def write_labels(
    path: str | os.PathLike,
    labels: np.ndarray,
    affine: np.ndarray,
    source: SpatialImage | None,
    description: str = "",
) -> None:
    """Write labels ``(X, Y, Z)`` with their affine as NIfTI, whole or not at all.

    Args:
        path: ends in .nii or .nii.gz.
        labels, affine, source: as for :func:`~common.io.nifti_affines.make_image`.
        description: text for the header's ``descrip``, at most 80 bytes.
    """
    image = make_image(labels, affine, source)
    image.header.set_intent("label")
    image.header["cal_min"] = image.header["cal_max"] = 0
    image.header["descrip"] = description.encode("ascii", "replace")[:80]
    with write_atomically(path) as temporary:
        nib.save(image, temporary)


def check_overlap(
    path: Any, labels: np.ndarray, affine: np.ndarray, size: Sequence[int], target_affine: np.ndarray
) -> None:
    """Raise a ValueError for a label map if no label, or without labels no voxel, lies on another grid.

    A label map that covers less of the grid's field of view causes a warning.

    Args:
        path: of the label map, for the message.
        labels, affine, size, target_affine: as for :func:`resample_labels`.
    """
    to_grid = np.linalg.solve(target_affine, affine)
    voxels = np.argwhere(labels if labels.any() else np.ones_like(labels))
    inside = np.ones(len(voxels), bool)
    for row, n in zip(to_grid[:3], size, strict=True):
        at = voxels @ row[:3] + row[3]
        inside &= (at > -0.5) & (at < n - 0.5)
    if not inside.any():
        raise ValueError(
            f"{path}: none of its labels lies in the field of view of the scan; expected a label map in the same "
            "space. Register it to the scan first, or name the label map of this scan."
        )
    points = np.stack(np.meshgrid(*(np.linspace(0, n - 1, min(n, _POINTS)) for n in size), indexing="ij"), axis=-1)
    at = apply_affine(np.linalg.inv(to_grid), points)
    # With a voxel more, because grids of one field of view may differ in where it ends.
    share, wide = (
        ((at > -0.5 - more) & (at < np.array(labels.shape) - 0.5 + more)).all(axis=-1).mean() for more in (0, 1)
    )
    if wide < _WHOLE:
        warnings.warn(
            f"the label map {path} covers {share:.0%} of the field of view that it is brought to; the rest gets no "
            "labels. Name a label map of all of it, if there is one.",
            stacklevel=2,
        )


class CheckLabelsd(MapTransform):
    """Refuse label maps that cannot be brought to a scan's result, before the result is computed.

    Args:
        keys: of the label maps' paths.
        reference: key of the scan ``(1, X, Y, Z)`` with an affine.
        allow_missing_keys: whether an entry may lack a key.
    """

    def __init__(self, keys: KeysCollection, reference: str, allow_missing_keys: bool = True) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            scan = d[self.reference]
            check_overlap(d[key], read_labels(d[key]), open_image(d[key]).affine, scan.shape[1:], _get_affine(scan))
        return d


class SaveLabelsd(MapTransform):
    """Write label maps on the grid of a scan's result, see :func:`resample_labels`.

    Args:
        keys: of the label maps' paths.
        reference: key of the result ``(1, X, Y, Z)``, with an affine and the ``filename_or_obj`` of its scan.
        output_dir, bids: as for :class:`SaveVolumed`. The path is :func:`~common.io.naming.make_label_path`.
        allow_missing_keys: whether an entry may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        output_dir: str | os.PathLike,
        bids: bool | str = False,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference, self.output_dir, self.bids = reference, output_dir, bids

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            file, result = data[key], data[self.reference]
            scan = result.meta["filename_or_obj"]
            name = data.get("name") or make_case_stem(Path(str(scan)), data.get("subject"))
            path = make_label_path(self.output_dir, name, self.bids)
            if os.path.realpath(file) == os.path.realpath(path):
                raise ValueError(f"{file}: its result would be written over it; name another output folder.")
            labels, affine = read_labels(file), open_image(file).affine
            labels = resample_labels(labels, affine, result.shape[1:], _get_affine(result))
            # The first words keep it out of the next run, as those of results do.
            text = f"super-resolved grid, labels of {Path(file).name}"
            write_labels(path, labels, _get_affine(result), open_image_or_none(scan), text)
        return dict(data)


def _get_affine(volume: MetaTensor) -> np.ndarray:
    return np.asarray(volume.affine, dtype=np.float64)
