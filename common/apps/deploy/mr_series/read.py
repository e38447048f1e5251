"""Reading one clean MR series, with every check that loaders leave out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage, MRImageStorage

# An image of one volume has the same of these as the others.
_SAME = (
    "PatientID", "StudyInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "Rows", "Columns", "PixelSpacing",
    "ImageOrientationPatient",
)  # fmt: skip
# What tells images at one place apart: echoes, time points, diffusion weightings, magnitude and phase.
_REPEATED = (
    "EchoTime", "EchoNumbers", "InversionTime", "FlipAngle", "TemporalPositionIdentifier", "TriggerTime",
    "AcquisitionNumber", "DiffusionBValue", "ImageType",
)  # fmt: skip
_PHASE = {"P", "PHASE", "PHASE MAP", "VELOCITY MAP"}
_UID = re.compile(r"[0-9.]{1,64}")
_UNIT = 1e-3  # how far direction cosines may be from unit length, right angles and those of the other slices


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
    """Read the headers of all DICOM files under a folder; other files are passed over with a line that names them.

    Args:
        folder: searched with all folders in it; names that begin with a dot are passed over.

    Returns:
        Headers, with the file's path as ``filename``, in the order of the names.

    Raises:
        ValueError: when there is no DICOM file, when one cannot be read, has no UIDs, or is there twice.
    """
    headers: dict[str, Dataset] = {}
    others = []
    for path in files_in(folder):
        header = read_header(path)
        if header is None:
            others.append(path.name)
            continue
        uid = header.SOPInstanceUID
        if uid in headers:
            raise ValueError(
                f"{path}: the same image as {headers[uid].filename} (SOPInstanceUID {uid}), expected each image once; "
                "take one of them out of the folder."
            )
        headers[uid] = header
    if not headers:
        raise ValueError(f"{folder}: no DICOM file in it, expected those of an MR series; found {_some(others)}.")
    if others:
        print(f"{folder}: passed over, no DICOM images: {_some(others)}")
    return list(headers.values())


def files_in(folder: str | os.PathLike) -> list[Path]:
    """All files under a folder and the folders that are linked in it, sorted; hidden ones are passed over."""
    found: list[Path] = []
    known: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # A link may lead back to a folder above it.
        folders[:] = [] if real in known else [name for name in folders if not name.startswith(".")]
        found += [] if real in known else [Path(parent, name) for name in names if not name.startswith(".")]
        known.add(real)
    return sorted(path for path in found if path.is_file())


def read_header(path: Path) -> Dataset | None:
    """Read a DICOM image without its pixels; None for a directory of DICOM media, or what is no DICOM nor named so.

    Raises:
        ValueError: when the file is damaged or lacks a UID.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        _drop_unreadable(header)
        uids = {k: str(header.get(k) or "") for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    except InvalidDicomError:
        if path.suffix.lower() in (".dcm", ".ima"):
            raise ValueError(
                f"{path}: not a DICOM file, though its name says so; expected 'DICM' at byte 128. Get a whole copy of "
                "the file, or take it out of the folder."
            ) from None
        return None
    except Exception as error:
        raise ValueError(f"{path}: the DICOM header cannot be read ({error}); get a whole copy of the file.") from None
    wrong = [keyword for keyword, uid in uids.items() if not _UID.fullmatch(uid)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} missing or no UID, expected one; export the study again.")
    return header


def describe(header: Dataset, count: int) -> str:
    """One line on a series, with what a person needs to choose it."""
    kind = header.SOPClassUID.name if "SOPClassUID" in header else "unknown kind"
    return (
        f"{header.SeriesInstanceUID}  number {header.get('SeriesNumber')}, {header.get('SeriesDescription', '')!r}, "
        f"{header.get('Modality')}, {count} files ({kind})"
    )


def read_volume(headers: Sequence[Dataset]) -> Volume:
    """Read the files of one series as a volume.

    Args:
        headers: of the files, any order, as :func:`read_headers` gives them.

    Returns:
        The volume; slices run along the normal of the slice plane.

    Raises:
        ValueError: as :func:`stack` does, and when pixels cannot be decoded.
    """
    headers, affine = stack(headers)
    return Volume(np.stack([_read_slice(header) for header in headers]), affine, headers)


def stack(headers: Sequence[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Sort the headers of one series along the normal of the slice plane, and give the affine of the stack.

    Raises:
        ValueError: when the series is not one stack of evenly spaced magnitude MR slices; the message names the file,
            what was found, what was expected and what to do.
    """
    for header in headers:
        _check_image(header)
    for keyword in _SAME:
        _check_same(headers, keyword)
    return _stack(headers)


def rescale(header: Dataset) -> tuple[float, float]:
    """Slope and intercept from stored integers to the image's units, 1 and 0 where the file has none."""
    slope = _numbers(header, "RescaleSlope", 1)[0] if "RescaleSlope" in header else 1.0
    intercept = _numbers(header, "RescaleIntercept", 1)[0] if "RescaleIntercept" in header else 0.0
    return slope, intercept


def _check_image(header: Dataset) -> None:
    """Refuse what is no slice of a magnitude MR image."""
    path = header.filename
    kind = header.get("SOPClassUID")
    if kind != MRImageStorage:
        raise ValueError(
            f"{path}: {getattr(kind, 'name', kind)} ({kind}), expected MR Image Storage, one file a slice. Convert "
            "multi-frame (enhanced) images to single-frame MR images first; other kinds hold no MR volume."
        )
    frames, samples = (_whole(header, keyword, 1) for keyword in ("NumberOfFrames", "SamplesPerPixel"))
    if frames != 1:
        raise ValueError(f"{path}: {frames} frames, expected one slice a file; convert to single-frame images first.")
    if samples != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise ValueError(
            f"{path}: {samples} samples a pixel, {header.get('PhotometricInterpretation')}; expected 1, MONOCHROME2. "
            "Colour maps and inverted images hold no signal intensities; choose another series."
        )
    for keyword in ("Rows", "Columns"):
        _whole(header, keyword)
    kinds = {str(value).upper() for value in _values(header, "ImageType")}
    if "LOCALIZER" in kinds:
        raise ValueError(
            f"{path}: a localizer (ImageType {_text(header, 'ImageType')}), expected a scan; choose another series."
        )
    if kinds & _PHASE:
        raise ValueError(
            f"{path}: a phase image (ImageType {_text(header, 'ImageType')}), expected magnitude; super-resolution of "
            "a phase is meaningless, choose the magnitude series."
        )
    if "ModalityLUTSequence" in header:
        raise ValueError(f"{path}: a Modality LUT, expected a linear rescale or none; export the series without it.")
    slope, _ = rescale(header)
    if slope == 0:
        raise ValueError(f"{path}: RescaleSlope is 0, expected a number that keeps the image; export the series again.")
    spacing = _numbers(header, "PixelSpacing", 2)
    if min(spacing) < 1e-3 or max(spacing) > 1e3:
        raise ValueError(
            f"{path}: PixelSpacing is {_text(header, 'PixelSpacing')}, expected two lengths from 0.001 to 1000 mm; the "
            "file is damaged or wrongly converted, export the series again."
        )
    _numbers(header, "ImagePositionPatient", 3)
    row, column = np.reshape(_numbers(header, "ImageOrientationPatient", 6), (2, 3))
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > _UNIT:
        raise ValueError(
            f"{path}: ImageOrientationPatient is {_text(header, 'ImageOrientationPatient')}, expected two unit "
            "vectors at right angles; the file is damaged or wrongly converted, export the series again."
        )


def _check_same(headers: Sequence[Dataset], keyword: str) -> None:
    """Refuse a series whose files differ in what one volume has in common."""

    def differs(header: Dataset) -> bool:
        if keyword in ("PixelSpacing", "ImageOrientationPatient"):
            count = 2 if keyword == "PixelSpacing" else 6
            mine, first = (np.array(_numbers(h, keyword, count)) for h in (header, headers[0]))
            return bool(np.abs(mine - first).max() > _UNIT * (first.max() if keyword == "PixelSpacing" else 1))
        return header.get(keyword) != headers[0].get(keyword)

    other = next((header for header in headers if differs(header)), None)
    if other is not None:
        raise ValueError(
            f"the series {headers[0].SeriesInstanceUID} is not one volume: {keyword} is {_text(headers[0], keyword)} "
            f"in {headers[0].filename} and {_text(other, keyword)} in {other.filename}, expected the same in all. "
            "Keep the files of one stack in a folder of their own."
        )


def _stack(headers: Sequence[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Sort slices along their normal and give the affine of the stack, if it is an even one."""
    uid = headers[0].SeriesInstanceUID
    if len(headers) < 2:
        raise ValueError(
            f"{headers[0].filename}: the only image of the series {uid}, expected a stack of slices; choose another "
            "series, or export the whole one."
        )
    row, column = np.reshape(_numbers(headers[0], "ImageOrientationPatient", 6), (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    positions = np.array([_numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    headers, positions = [headers[i] for i in order], positions[order]
    files = [Path(header.filename).name for header in headers]
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    step = float(np.median(steps))
    tolerance = max(0.01 * step, 0.02)  # mm; positions are often written with two decimals
    if steps.min() <= tolerance:
        i = int(steps.argmin())
        differences = [k for k in _REPEATED if headers[i].get(k) != headers[i + 1].get(k)]
        raise ValueError(
            f"the series {uid} has several images at one place, {files[i]} and {files[i + 1]} (they differ in "
            f"{', '.join(differences) or 'nothing but the pixels'}), expected one. Keep the files of one echo, time "
            "point or diffusion weighting in a folder of their own."
        )
    gap = int(steps.argmax())
    if np.abs(steps - step).max() > tolerance:
        times = steps / steps.min()
        if np.abs(times - np.rint(times)).max() < 0.05:
            missing = int(np.rint(times - 1).sum())
            raise ValueError(
                f"the series {uid} lacks {missing} slices, the first between {files[int((times > 1.5).argmax())]} and "
                f"the next file: its {len(files)} slices are {steps.min():g} mm apart and there up to "
                f"{steps.max():g} mm, expected even steps. Export the whole series."
            )
        raise ValueError(
            f"the series {uid} has slices {steps.min():g} to {steps.max():g} mm apart, the most between {files[gap]} "
            f"and {files[gap + 1]}; expected even steps. Several stacks in one series must be separated first."
        )
    spacing = _numbers(headers[0], "PixelSpacing", 2)
    sideways = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1)
    if sideways.max() > max(0.1 * min(spacing), 0.02):
        worst = int(sideways.argmax())
        raise ValueError(
            f"{headers[worst].filename}: the slice is {sideways[worst]:.3g} mm beside the line through the first slice "
            f"({files[0]}) along the normal, expected a stack at right angles to its slices, not a sheared one."
        )
    affine = np.eye(4)
    # PixelSpacing is between rows first, then between columns.
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], normal * along[-1] / (len(files) - 1)], axis=1)
    affine[:3, 3] = positions[0]
    return headers, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _read_slice(header: Dataset) -> np.ndarray:
    """Pixels of a file, in its units, float32."""
    path = header.filename
    slope, intercept = rescale(header)
    try:
        image = dcmread(path)
        syntax = image.file_meta.TransferSyntaxUID
        compressed = syntax.is_compressed
    except Exception as error:
        raise ValueError(f"{path}: the file cannot be read ({error}); get a whole copy of it.") from None
    if "PixelData" not in image:
        raise ValueError(f"{path}: no pixel data, expected an image; export the series with its pixels.")
    try:
        pixels = image.pixel_array
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: the pixel data cannot be decoded ({reason}). "
            + (
                f"They are compressed, {syntax.name}; decompress the series first, for example with dcmtk's "
                "dcmdjpeg, or install a decoder: pip install pylibjpeg pylibjpeg-libjpeg."
                if compressed
                else "The file is damaged, get a whole copy of it."
            )
        ) from None
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError(f"{path}: pixels of shape {pixels.shape}, expected {(header.Rows, header.Columns)}.")
    return (pixels * slope + intercept).astype(np.float32)


def _drop_unreadable(header: Dataset) -> None:
    """Take out attributes whose values are not of their type, as scanners and converters write now and then.

    Those that a volume needs are reported as missing; the others would only be copied.
    """
    for tag in list(header.keys()):
        try:
            header[tag]
        except Exception:
            del header[tag]


def _values(header: Dataset, keyword: str) -> list[Any]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)


def _text(header: Dataset, keyword: str) -> str:
    return "\\".join(str(value) for value in _values(header, keyword)) or "missing or unreadable"


def _numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    """An attribute's numbers, all finite and as many as there must be."""
    values = _values(header, keyword)
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(
            f"{header.filename}: {keyword} is {_text(header, keyword)}, expected {count} finite "
            f"number{'s' if count > 1 else ''}; a volume cannot be placed or scaled without, export the series again."
        )
    return numbers


def _whole(header: Dataset, keyword: str, default: int | None = None) -> int:
    values = _values(header, keyword) or ([] if default is None else [default])
    try:
        number = int(values[0]) if len(values) == 1 else 0
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ValueError(f"{header.filename}: {keyword} is {_text(header, keyword)}, expected a whole number above 0.")
    return number


def _some(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
