"""Write results as derived DICOM series."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...io.writing import open_part_folder
from .files import read_dicom_header
from .series import Series, is_derived
from .tags import get_values
from .write import write_series


def write_derived_series(
    series: Series,
    result: str | os.PathLike,
    folder: str | os.PathLike,
    bundle: Mapping[str, Any],
    others: Sequence[Series] = (),
) -> Path:
    """Write a result of :func:`write_nifti`'s file as a derived series, either completely or not at all.

    Args:
        series: the source of the result.
        result: NIfTI file, with the axes of :func:`write_nifti`, or on any other grid.
        folder: created if it is missing. The series becomes a folder in it, named by the new SeriesInstanceUID. Older
            derived series of some of these images in it are then removed.
        bundle: as for :func:`~common.program.dicom.write.write_series`.
        others: further sources of the result.

    Returns:
        The folder of the new series.

    Raises:
        ValueError: when the result has voxels that are not finite.
    """
    image: Any = nib.load(result)
    try:
        affine = _restore_affine(image.affine, series.affine)
        voxels = np.asanyarray(image.dataobj).T
        with open_part_folder(folder) as part:
            series_folder = part / "series"
            series_folder.mkdir()
            uid = write_series(
                series_folder,
                voxels,
                affine,
                series.affine,
                series.headers,
                bundle,
                series.part,
                series.number,
                [other.headers for other in others],
            )
            new = series_folder.rename(Path(folder) / uid)
    except ValueError as error:
        raise ValueError(f"{result}: {error}") from None
    sources = {(str(header.SOPInstanceUID), getattr(header, "frame", 0) + 1) for header in series.headers}
    for other in Path(folder).iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run may remove it at the same time
            older = other.stat().st_mtime_ns < new.stat().st_mtime_ns
            if older and other.is_dir() and not other.is_symlink():
                _remove_derived_series(other, sources)
    return new


def _remove_derived_series(folder: Path, sources: set[tuple[str, int]]) -> None:
    """Remove files that :func:`write_derived_series` made from a stack or a part of it, and their folder if nothing is
    left.

    Args:
        folder: folder with the name of the derived series.
        sources: SOPInstanceUIDs and numbers of frames of the images of the stack.
    """
    folders = [path for path in folder.iterdir() if _is_made_of(path, sources, folder.name)]
    for path in folders:
        path.unlink(missing_ok=True)
    if folders and not any(folder.iterdir()):
        folder.rmdir()


def _is_made_of(path: Path, sources: set[tuple[str, int]], uid: str) -> bool:
    """Whether :func:`write_derived_series` made a file from some of these images, in the derived series ``uid``."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        header = read_dicom_header(path)
    except ValueError:
        return False  # damaged, so its series is unknown
    if header is None or not is_derived(header) or header.SeriesInstanceUID != uid:
        return False
    referenced = {
        (str(item.get("ReferencedSOPInstanceUID")), int(frame))
        for item in header.get("SourceImageSequence", [])
        for frame in get_values(item, "ReferencedFrameNumber") or [1]
    }
    return not sources.isdisjoint(referenced)


def _restore_affine(affine: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Restore a result's affine in float64; NIfTI keeps only 24 bits.

    The result's voxels lie at simple fractions of the source's voxels. These fractions are found, and multiplied by
    the source's exact affine. If the axes are not the source's axes, the affine is returned as it is.
    """
    index = np.linalg.solve(source, affine)
    axes = index[:3, :3]
    if np.abs(axes - np.diag(np.diag(axes))).max() > 1e-3 or np.diag(axes).min() <= 0:
        return np.asarray(affine, dtype=np.float64)
    simple = np.vectorize(lambda number: float(Fraction(number).limit_denominator(64)))(index)
    rounding = np.array([1e-6, 1e-6, 1e-6, 1e-4])  # of an axis, and of a position, in voxels
    return source @ np.where(np.abs(simple - index) < rounding, simple, index)
