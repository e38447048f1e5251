"""How thick the slices of a scan are, by its protocol."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor, affine_to_spacing
from nibabel.affines import voxel_sizes

from ..runtime.errors import Notice
from .files import parse_slice_thickness, read_sidecar
from .images import open_image

_ROUNDING = 0.01  # of voxel sizes in headers


def read_profile_width(volume: torch.Tensor) -> float | None:
    """Read the width of a stack's profile from its protocol, in distances of its slices.

    This is ``SliceThickness`` in mm over the distance of the slices, from the volume's metadata (DICOM readers) or else
    the sidecar JSON (dcm2niix, BIDS). An unreadable value gives a warning.

    Args:
        volume: ``(B, 1, X, Y, Z)``, slices along the last axis; the first of the batch is the scan.

    Returns:
        The width; None if the slice thickness is not known. The JSON is ignored if the volume's slice distance is not a
        voxel size of its file, such as for LR made from an HR scan.
    """
    if not isinstance(volume, MetaTensor):
        return None
    file, thickness = (read_first_meta(volume, key) for key in ("filename_or_obj", "SliceThickness"))
    spacing = affine_to_spacing(volume.affine.reshape(-1, 4, 4)[0]).tolist()
    if thickness is None:
        mm = _read_sidecar_thickness(file, spacing) if isinstance(file, str) else None
    elif (mm := parse_slice_thickness(thickness)) is None:
        warnings.warn(
            f"{file}: SliceThickness is {thickness!r}, expected mm above 0; it is not used.", Notice, stacklevel=2
        )
    return None if mm is None else mm / spacing[2]


def read_first_meta(volume: MetaTensor, key: str) -> object:
    """A metadata value of a volume, or of the first volume of a batch."""
    value = volume.meta.get(key)
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = np.ravel(value)[0].item()
    return value


def _read_sidecar_thickness(file: str, spacing: Sequence[float]) -> float | None:
    """SliceThickness in a file's sidecar JSON, if the file has this slice distance; else None."""
    metadata, problem = read_sidecar(file)
    if problem is not None:
        warnings.warn(problem, stacklevel=3)
    if "SliceThickness" not in metadata or not Path(file).is_file():
        return None
    same = np.isclose(voxel_sizes(open_image(file).affine), spacing[2], rtol=_ROUNDING)
    return metadata["SliceThickness"] if same.any() else None
