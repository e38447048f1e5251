"""Read one MR series, with the checks that other loaders lack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from ..files import list_files
from .copies import without_copies
from .enhanced import check_concatenations
from .files import read_images
from .geometry import stack
from .kinds import no_scan
from .parts import parts, split_series
from .pixels import read_voxels
from .tags import name, some


@dataclass
class Volume:
    """A series as a volume.

    Attributes:
        voxels: ``(slices, rows, columns)``, float32, in the units that the rescale of the files gives.
        affine: 4x4, index ``(column, row, slice)`` to world (RAS, mm), float64.
        headers: of the slices, in the order of ``voxels``, without pixel data.
    """

    voxels: np.ndarray
    affine: np.ndarray
    headers: list[Dataset]


def read_headers(folder: str | os.PathLike) -> list[Dataset]:
    """Read the headers of all DICOM images under a folder. Other files are skipped with a line that names them.

    Args:
        folder: searched with all folders in it. Names that begin with a dot are skipped.

    Returns:
        Headers, with the file's path as ``filename``, in the order of the names.

    Raises:
        ValueError: when there is no DICOM file, when one cannot be read or has no UIDs, or when two files of one image
            differ.
    """
    headers, others = [], []
    for path in (Path(folder, file) for file in list_files(Path(folder))):
        images = read_images(path)
        headers += images
        if not images:
            others.append(path.name)
    if not headers:
        raise ValueError(f"{folder}: no DICOM file in it, expected those of an MR series; found {some(others)}.")
    if others:
        print(f"{folder}: passed over, no DICOM images: {some(others)}")
    headers, copies = without_copies(headers)
    check_concatenations(headers)
    if copies:
        print(f"{folder}: passed over, copies of other files: {some(copies)}")
    return headers


def describe(header: Dataset, count: int, part: str = "") -> str:
    """A line about a series or a part of it, for a person who has to choose one."""
    kind = getattr(header.get("SOPClassUID"), "name", None) or "unknown kind"
    return (
        f"{header.SeriesInstanceUID}  number {header.get('SeriesNumber')}, {header.get('SeriesDescription', '')!r}, "
        f"{part}{', ' if part else ''}{header.get('Modality')}, {count} images ({kind})"
    )


def read_stack(headers: Sequence[Dataset]) -> Volume:
    """Read the files of one series as a volume.

    Args:
        headers: headers of the files from :func:`read_headers`, in any order.

    Returns:
        The volume; slices run along the normal of the slice plane.

    Raises:
        ValueError: as :func:`stack` and :func:`read_voxels` do, and when the series holds several stacks.
    """
    if reason := no_scan(headers):
        raise ValueError(f"{headers[0].filename}: {reason}")
    several = [part for own in split_series(headers) for part in parts(own)]
    if len(several) > 1:
        listed = "; ".join(
            f"{p.name or describe(p.headers[0], len(p.headers))}: {some([name(h) for h in p.headers])}" for p in several
        )
        raise ValueError(
            f"the series {headers[0].SeriesInstanceUID} holds {len(several)} stacks, expected one. Copy the files of "
            "one stack into a folder of its own and name that folder; mri-sr does each stack. "
            f"The stacks are: {listed}."
        )
    headers, affine = stack(headers)
    return Volume(read_voxels(headers), affine, headers)
