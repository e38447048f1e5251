"""DICOM in, DICOM out: MR series as NIfTI, and results as derived series, with the Deploy application's code."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .files import sidecar
from .transforms.scan.forms import placed_image

try:
    from pydicom import Dataset

    from .apps.deploy.mr_series.read import describe, files_in, read_header, read_volume, stack
    from .apps.deploy.mr_series.write import slice_thickness, write_series
except ImportError as error:
    raise ImportError(
        f"DICOM needs pydicom and highdicom ({error.name} is missing): pip install 'mri-sr-bundles[dicom]'."
    ) from error


@dataclass
class Series:
    """A series of DICOM images.

    Attributes:
        description: one line for a person: UID, number, description, modality, number of files.
        headers: of its images without pixels, each with its file as ``filename``; in the order of the slices where the
            series is a volume.
        affine: 4x4, index ``(column, row, slice)`` to world (RAS, mm); None where the series is no volume.
        problem: why the series cannot be read as a volume, or None.
    """

    description: str
    headers: list[Dataset]
    affine: np.ndarray | None = None
    problem: str | None = None

    @property
    def files(self) -> list[Path]:
        """Its files."""
        return [Path(header.filename) for header in self.headers]


def find_series(folder: str | os.PathLike) -> list[Series]:
    """Every DICOM series under a folder, by its headers alone.

    A series that is no stack of MR slices has the reason as its problem. So has each that lies in a folder with a
    damaged file, since nobody knows whose slice that was; where no series lies with it, it is one of its own.

    Args:
        folder: searched with all folders in it. Files that are no DICOM are passed over, and names that begin with a
            dot.

    Returns:
        In the order of the files' names; none where there is no DICOM file.
    """
    found: dict[tuple[str, str], list[Dataset]] = {}
    damaged: dict[Path, str] = {}
    for path in files_in(folder):
        try:
            header = read_header(path)
        except ValueError as error:
            damaged.setdefault(path.parent, str(error))
            continue
        if header is not None:
            found.setdefault((header.StudyInstanceUID, header.SeriesInstanceUID), []).append(header)
    series = [_checked(headers, damaged) for headers in found.values()]
    alone = damaged.keys() - {path.parent for each in series for path in each.files}
    return series + [Series(f"a damaged file in {parent}", [], problem=damaged[parent]) for parent in sorted(alone)]


def to_nifti(series: Series, path: str | os.PathLike) -> None:
    """Write a series as NIfTI: axes (column, row, slice), values in the series' units as float32.

    Beside it a JSON of the same name has the ``SliceThickness`` in mm, where all slices have the same.

    Args:
        series: one without a problem.
        path: of the file.

    Raises:
        ValueError: when pixels are missing or cannot be decoded; the message names the file.
    """
    volume = read_volume(series.headers)
    nib.save(placed_image(volume.voxels.T, volume.affine, None), path)
    if (thickness := slice_thickness(volume.headers)) is not None:
        sidecar(path).write_text(json.dumps({"SliceThickness": thickness}) + "\n")


def write_derived(
    series: Series, result: str | os.PathLike, folder: str | os.PathLike, bundle: Mapping[str, Any]
) -> Path:
    """Write a result that was made from :func:`to_nifti`'s file as a derived series, all of it or nothing.

    Args:
        series: that the result was made from.
        result: NIfTI file, with the axes of :func:`to_nifti`.
        folder: made when it is not there; the series becomes a folder in it, named by the new SeriesInstanceUID.
        bundle: the ``metadata.json`` of the bundle that made it, with the SHA-256 of its weights as "sha256".

    Returns:
        The folder of the new series.

    Raises:
        ValueError: when the result was not made from this series, or has voxels that are not finite.
    """
    image = nib.load(result)
    try:
        affine = _unrounded(image.affine, series.affine)
        voxels = np.asanyarray(image.dataobj).T
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
            made = Path(part) / "series"
            made.mkdir()
            return made.rename(Path(folder) / write_series(made, voxels, affine, series.headers, bundle))
    except ValueError as error:
        raise ValueError(f"{result}: {error}") from None


def _checked(headers: list[Dataset], damaged: Mapping[Path, str]) -> Series:
    """A series with its geometry, or what is wrong with it."""
    description = describe(headers[0], len(headers))
    problem = next((damaged[p] for h in headers if (p := Path(h.filename).parent) in damaged), None)
    if problem is None:
        try:
            return Series(description, *stack(headers))
        except ValueError as error:
            problem = str(error)
    return Series(description, headers, problem=problem)


def _unrounded(affine: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The affine of a result in float64, of which NIfTI keeps 24 bits.

    Its voxels lie at simple fractions of the source's: those are found and the source's affine, which is exact, is
    applied to them.

    Raises:
        ValueError: when the axes are not the source's.
    """
    index = np.linalg.solve(source, affine)
    axes = index[:3, :3]
    if np.abs(axes - np.diag(np.diag(axes))).max() > 1e-3 or np.diag(axes).min() <= 0:
        raise ValueError("the axes are not those of the DICOM series, expected a result that was made from it.")
    simple = np.vectorize(lambda number: float(Fraction(number).limit_denominator(64)))(index)
    rounding = np.array([1e-6, 1e-6, 1e-6, 1e-4])  # of an axis, and of a position, in voxels
    return source @ np.where(np.abs(simple - index) < rounding, simple, index)
