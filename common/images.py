"""Volumes on disk: the formats that are read, and one way to open them."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
from nibabel.spatialimages import SpatialImage

# What open_image reads, the longest first. Of a pair of files the one with the header counts.
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img", ".head", ".nrrd", ".nhdr", ".mha", ".mhd")


def ending(path: str | os.PathLike) -> str | None:
    """The ending of a file's name, in lower case, where it is that of a format that :func:`open_image` reads."""
    name = Path(path).name.lower()
    return next((end for end in ENDINGS if name.endswith(end)), None)


def open_image(path: str | os.PathLike) -> SpatialImage:
    """Open a volume without reading its voxels.

    Args:
        path: of a file with one of :data:`ENDINGS`.

    Returns:
        The image; its affine is in mm.

    Raises:
        ValueError: when the file cannot be read; the message names it.
    """
    return nib.load(path)
