"""Bring label maps to the grid of another image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage

from ..geometry.labels import resample_labels
from ..io.images import open_image, open_image_or_none
from ..io.naming import make_case_stem
from ..io.nifti_affines import make_image, write_image
from ..transforms.scan.check import CheckHeaderd, describe_labels
from .dicom.recognition import is_dicom
from .naming import make_label_path

_MANY = 50  # labels; only more are compared with their neighbours
_POINTS, _WHOLE = 64, 0.99  # along each axis, and the share of them that a label map of the whole scan covers


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read the labels ``(X, Y, Z)`` of a file in any format, in its data type, or int32 if it scales its voxels."""
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


def write_labels(
    path: str | os.PathLike, labels: np.ndarray, affine: np.ndarray, source: SpatialImage | None, description: str = ""
) -> None:
    """Write labels ``(X, Y, Z)`` with their affine as NIfTI.

    Args:
        path, description: as for :func:`~common.io.nifti_affines.write_image`.
        labels, affine, source: as for :func:`~common.io.nifti_affines.make_image`.
    """
    image = make_image(labels, affine, source)
    image.header.set_intent("label")
    write_image(image, path, description)


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
        output_dir, bids: as for :func:`~common.program.naming.make_label_path`, which gives the path.
        allow_missing_keys: whether an entry may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        output_dir: str | os.PathLike,
        bids: bool = False,
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
