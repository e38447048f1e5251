"""Open a volume that a user names: a file, or a DICOM series."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from ...io.files import read_sidecar
from ...io.formats import advise_volume, get_extension
from ...io.images import open_image
from .recognition import enter_dicomdir

if TYPE_CHECKING:
    from .series import Series


def open_volume(name: str | os.PathLike, place: str) -> SpatialImage:
    """Open the 3-D volume of a file, of a folder with one DICOM series, or of the series that a file belongs to.

    ``image.extra`` has what is known of the acquisition: keys of the file's sidecar, such as ``SliceThickness`` (mm),
    and ``SeriesName`` and ``SeriesInstanceUID`` of a DICOM series.

    Args:
        name: the file or folder.
        place: where the user named it, for messages, for example ``compare: --scan a.nii.gz``.
    """
    path = enter_dicomdir(Path(name))
    if not path.exists():
        raise FileNotFoundError(f"{place}: there is no such file or folder.")
    if path.is_dir() or get_extension(path) is None:
        return _read_series(path, place)
    try:
        image = nib.squeeze_image(open_image(path))
    except ValueError as error:
        raise ValueError(f"{place.removesuffix(str(name))}{error}") from None
    if len(image.shape) != 3:
        advice = f"; {advise_volume(path)}" if len(image.shape) == 4 else ""
        raise ValueError(f"{place} has shape {image.shape}; expected a 3-D volume{advice}.")
    image.extra.update(read_sidecar(path)[0])
    return image


def choose_series(path: Path, place: str) -> Series:
    """The DICOM series in a folder, or that of a file, of one volume; arguments as for :func:`open_volume`."""
    from .search import find_series  # whose packages are optional

    candidates = find_series(path if path.is_dir() else path.parent)
    if path.is_file():
        candidates = [series for series in candidates if series.has_file(path)]
    elif scans := [series for series in candidates if not series.is_derived]:
        candidates = scans  # mri-sr puts its results into the scan's folder
    if not candidates:
        what = "holds no DICOM series" if path.is_dir() else "is neither a volume nor DICOM"
        raise ValueError(f"{place} {what}; name a NIfTI file, or the folder of a series.")
    if len(candidates) > 1:
        listing = "\n  ".join(
            f"{series.files[0] if series.files else ''} {series.description}" for series in candidates
        )
        raise ValueError(f"{place} holds {len(candidates)} DICOM series; name a file of one of them:\n  {listing}")
    if problem := candidates[0].problem or candidates[0].exclusion:
        raise ValueError(f"{place}: {candidates[0].description}: {problem}")
    if candidates[0].volumes > 1:
        folder = shlex.quote(str(candidates[0].files[0].parent))
        raise ValueError(
            f"{place} has shape {candidates[0].shape}; expected a 3-D volume; convert it to NIfTI, dcm2niix -f series "
            f"-o FOLDER {folder}, and {advise_volume('FOLDER/series.nii')}."
        )
    return candidates[0]


def _read_series(path: Path, place: str) -> nib.Nifti1Image:
    """Return the volume of the DICOM series in a folder, or of the series that a file belongs to."""
    series = choose_series(path, place)
    from .series import write_nifti

    with tempfile.TemporaryDirectory() as folder:
        write_nifti(series, file := Path(folder) / "volume.nii")
        image = nib.load(file)
        voxels = np.asarray(image.dataobj)  # type: ignore[attr-defined]
        known = {**read_sidecar(file)[0], "SeriesName": series.stem, "SeriesInstanceUID": series.uid}
        return nib.Nifti1Image(voxels, image.affine, extra=known)  # type: ignore[attr-defined]
