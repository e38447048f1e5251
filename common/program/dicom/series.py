"""DICOM MR series, and what is read of them; a series as NIfTI."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from ...io.files import get_sidecar_path
from ...io.lazy_voxels import LazyVoxels
from ...io.nifti_affines import Encoding, make_image

try:
    from pydicom import Dataset

    from .kinds import is_mosaic
    from .pixels import read_voxels
    from .tags import format_some, get_number, get_words, name_image
    from .write import DERIVED, choose_pixel_encoding, choose_rescale, get_slice_thickness
except ImportError as error:
    raise ImportError(
        f"DICOM needs pydicom and highdicom ({error.name} is missing): pip install 'mri-sr-bundles[dicom]'."
    ) from error


@dataclass
class Series:
    """A series of DICOM images, or a part of one that can be a volume, such as one echo.

    Attributes:
        description: one line for a person: UID, number, description, part, modality, number of files.
        headers: headers of its images without pixels, each with its file as ``filename``. If the series is a volume,
            they are in the order of the slices; of several volumes, one volume after the other.
        affine: 4x4, index ``(column, row, slice)`` to world (RAS, mm); None if the series is not a volume.
        problem: why the series cannot be read as a volume, or None.
        exclusion: why it is not for super-resolution (phase images, a map, a localizer, another modality), or None.
        part: name of the part, such as "echo 2, TE 90 ms"; empty for a whole series.
        number: of the part, from 0.
        warnings: warnings about slices that may be missing; :meth:`open` gives them.
        volumes: number of its volumes, which are time points of one scan.
    """

    description: str
    headers: list[Dataset]
    affine: np.ndarray | Any = None
    problem: str | None = None
    exclusion: str | None = None
    part: str = ""
    number: int = 0
    warnings: list[UserWarning] = field(default_factory=list)
    volumes: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Columns, rows and slices; of several volumes their number too."""
        size = self.headers[0].Columns, self.headers[0].Rows, len(self.headers) // self.volumes
        return size if self.volumes == 1 else (*size, self.volumes)

    @property
    def files(self) -> list[Path]:
        """Its files, each once."""
        return [Path(name) for name in dict.fromkeys(header.filename for header in self.headers)]

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID, or "damaged" if no file can be read."""
        return str(self.headers[0].SeriesInstanceUID) if self.headers else "damaged"

    @property
    def stem(self) -> str:
        """A name for files that are made of it."""
        header: Any = self.headers[0] if self.headers else {}
        words = [*(str(header.get(key) or "") for key in ("SeriesNumber", "SeriesDescription")), self.part]
        return re.sub("[^A-Za-z0-9]+", "_", " ".join(words)).strip("_") or "series"

    @property
    def is_mosaic(self) -> bool:
        """Whether it is a scan whose images hold all slices of a volume next to each other."""
        return self.exclusion is None and bool(self.headers) and all(map(is_mosaic, self.headers))

    @property
    def is_derived(self) -> bool:
        """Whether :func:`common.program.dicom.derived.write_derived_series` wrote any of it."""
        return any(map(is_derived, self.headers))

    @property
    def study(self) -> Hashable:
        """What all scans of one exam have in common."""
        return self.headers[0].StudyInstanceUID if self.headers else self.description

    @property
    def contrast(self) -> Hashable:
        """What the stacks of one contrast have in common."""
        return get_contrast_properties(self.headers[0]) if self.headers else self.description

    @property
    def acquisition(self) -> dict[str, Any]:
        """What its headers say about the acquired matrix, see :func:`read_acquisition`."""
        return read_acquisition(self.headers)

    def open(self) -> SpatialImage:
        """Open a series without a problem as an image with axes (column, row, slice), without reading its pixels."""
        for warning in self.warnings:
            warnings.warn(warning, stacklevel=2)
        voxels: Any = LazyVoxels(
            lambda: read_voxels(self.headers).T.reshape(self.shape, order="F"), self.shape, np.float32
        )
        return SpatialImage(voxels, self.affine)

    def has_file(self, path: Path) -> bool:
        """Whether a file is one of its files, by whatever path."""
        return path.resolve() in [file.resolve() for file in self.files]


def choose_stack(series: Sequence[Series], where: object) -> Series:
    """The only scan among series.

    Args:
        series: from :func:`~common.program.dicom.search.find_series`, at least one.
        where: what holds them, for messages.
    """
    scans = [each for each in series if each.exclusion is None]
    if not scans:
        raise ValueError("\n  ".join(f"{where}: {each.description}: {each.exclusion}" for each in series))
    if len(scans) > 1:
        listed = (
            f"{each.part or each.description}: {format_some([name_image(h) for h in each.headers])}" for each in scans
        )
        raise ValueError(
            f"{where} holds {len(scans)} stacks, expected one. Copy the files of one stack into a folder of its own "
            f"and name that folder; mri-sr does each stack. The stacks are: {'; '.join(listed)}."
        )
    if scans[0].problem is not None:
        raise ValueError(f"{where}: " + scans[0].problem.removeprefix(f"{where}: "))
    if scans[0].volumes > 1:
        raise ValueError(f"{where} holds {scans[0].volumes} time points, expected one volume; mri-sr does them all.")
    return scans[0]


def write_nifti(series: Series, path: str | os.PathLike) -> None:
    """Write a series as NIfTI: axes (column, row, slice), values in the series' units, as 16-bit integers if they fit.

    The fourth axis of several volumes is time, in seconds. A JSON next to it, with the same name, says that the slices
    lie along the third axis. If all slices have the same ``SliceThickness``, it holds this in mm.

    Args:
        series: a series without a problem.
        path: the file to write.

    Raises:
        ValueError: when pixels are missing or cannot be decoded; the message names the file.
    """
    voxels, encoding = np.asanyarray(series.open().dataobj), None
    dtype, slope, intercept = choose_pixel_encoding(voxels, *choose_rescale(series.headers))
    stored = (voxels.astype(np.float64) - intercept) / slope
    if np.abs(stored - np.rint(stored)).max() < 0.01:  # not if slices are scaled differently
        if (slope, intercept) == (1, 0):
            voxels = np.rint(voxels).astype(dtype)
        else:
            encoding = Encoding(dtype.name, slope, intercept)
    image = make_image(voxels, series.affine, None, encoding)
    if series.volumes > 1:
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = _measure_time_step(series)
    nib.save(image, path)
    thickness = get_slice_thickness(series.headers)
    known = {"SliceEncodingDirection": "k", **({} if thickness is None else {"SliceThickness": thickness})}
    get_sidecar_path(path).write_text(json.dumps(known) + "\n")


def _measure_time_step(series: Series) -> float:
    """Seconds between the volumes of a series: RepetitionTime, unless other times say another; 0 if unknown."""
    ends, steps = [series.headers[i] for i in (0, -series.shape[2])], series.volumes - 1
    first, last = (get_number(header, "TriggerTime") or 0.0 for header in ends)
    if first < last:
        return (last - first) / 1000 / steps
    repetition = (get_number(ends[0], "RepetitionTime") or 0.0) / 1000
    texts = [str(header.get("AcquisitionTime")) for header in ends]
    try:  # of HHMMSS.FFFFFF
        start, end = (int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:]) for text in texts)
    except ValueError:
        return repetition
    step = (end - start) / steps
    # Times may be whole seconds.
    return step if step > 0 and abs(step - repetition) > max(0.01 * step, 1 / steps) else repetition


def read_acquisition(headers: Sequence[Dataset]) -> dict[str, Any]:
    """Read the tags (0018,1310) and (0018,1312) of a series as keys of dcm2niix.

    The four numbers of (0018,1310) count frequency samples along rows and columns, then phase samples along both.
    Unused numbers are 0. Only (0018,1312) shows which axis is which: Philips fills the numbers in one order for both.

    Args:
        headers: headers of all slices. Tags that differ between slices are ignored.

    Returns:
        The keys and values; empty if the tags are missing or hold something else.
    """
    matrices = {(str(h.get("AcquisitionMatrix")), h.get("InPlanePhaseEncodingDirection")) for h in headers}
    matrix = headers[0].get("AcquisitionMatrix")
    if len(matrices) > 1 or not isinstance(matrix, Sequence) or len(matrix) != 4:
        return {}
    return {
        "FrequencyEncodingSteps": max(matrix[0], matrix[1]),
        "AcquisitionMatrixPE": max(matrix[2], matrix[3]),
        "InPlanePhaseEncodingDirectionDICOM": headers[0].get("InPlanePhaseEncodingDirection"),
    }


def get_contrast_properties(header: Dataset) -> tuple[bool, ...]:
    """The properties of an image's contrast in which stacks of one exam must agree.

    Returns:
        Whether the echo time is above 30 ms, the repetition time above 1500 ms, the inversion time above 1500 ms, and
        the sequence a gradient echo. False for what the header lacks.
    """
    times = ("EchoTime", 30), ("RepetitionTime", 1500), ("InversionTime", 1500)
    return (
        *((get_number(header, key) or 0) > limit for key, limit in times),
        "GR" in get_words(header, "ScanningSequence"),
    )


def is_derived(header: Dataset) -> bool:
    """Whether :func:`common.program.dicom.derived.write_derived_series` wrote an image."""
    return bool(DERIVED.match(str(header.get("DerivationDescription", ""))))


def describe_images(header: Dataset, count: int, part: str = "") -> str:
    """A line about a series or a part of it, for a person who has to choose one."""
    kind = getattr(header.get("SOPClassUID"), "name", None) or "unknown kind"
    return (
        f"{header.SeriesInstanceUID}  number {header.get('SeriesNumber')}, {header.get('SeriesDescription', '')!r}, "
        f"{part}{', ' if part else ''}{header.get('Modality')}, {count} images ({kind})"
    )
