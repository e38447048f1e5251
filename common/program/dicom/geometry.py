"""Check that DICOM images are one stack of even slices, and compute its affine."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from .kinds import ENHANCED, explain_image_exclusion, is_mosaic
from .parts import describe_differences
from .pixels import get_rescale
from .tags import format_values, get_numbers, get_whole_number, name_image

# Tags that are equal in all images of one volume.
_SAME = (
    "PatientID", "StudyInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "Rows", "Columns", "PixelSpacing",
    "ImageOrientationPatient",
)  # fmt: skip
_UNIT = 1e-3  # allowed error of direction cosines: length, right angle, difference between slices
_ROUNDING = 0.06  # mm; allowed error of a position, since some have one decimal


class MissingSlicesError(ValueError):
    """Slices are missing between those of a stack; ``share`` is their number over that of the slices."""

    def __init__(self, message: str, share: float) -> None:
        super().__init__(message)
        self.share = share


def sort_into_stack(headers: Sequence[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Sort the headers of one part of a series along the slices' normal, and compute the affine of the stack.

    Raises:
        ValueError: when the part is not one stack of evenly spaced magnitude MR slices; the message names the file,
            what was found, what was expected and what to do.
    """
    for header in headers:
        _check_image(header)
    for keyword in _SAME:
        _check_equal(headers, keyword)
    uid = headers[0].SeriesInstanceUID
    if len(headers) < 2:
        raise ValueError(
            f"{headers[0].filename}: the only image of the series {uid}, expected a stack of slices; choose another "
            "series, or export the whole one."
        )
    row, column = np.reshape(get_numbers(headers[0], "ImageOrientationPatient", 6), (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    positions = np.array([get_numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    headers, positions = [headers[i] for i in order], positions[order]
    files = [name_image(header) for header in headers]
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    if steps.min() <= _compute_tolerance(steps):
        i = int(steps.argmin())
        raise ValueError(
            f"the series {uid} has several images at one place, {files[i]} and {files[i + 1]} (they differ in "
            f"{describe_differences(headers[i], headers[i + 1])}), expected one. Copy the files of one echo, time "
            "point or diffusion weighting into a folder of its own and name that folder."
        )
    instances = Counter(format_values(header, "InstanceNumber") for header in headers)
    is_classic = not hasattr(headers[0], "frame")  # frames may have the number of their file
    if is_classic and len(instances) > 1 and (times := min(instances.values())) > 1:
        raise ValueError(
            f"the series {uid} has {times} slices or more of each InstanceNumber, expected one: they look like {times} "
            "stacks that lie between each other. Copy the files of one stack into a folder of its own and name that "
            "folder."
        )
    _check_steps(uid, files, along, _ROUNDING * np.abs(normal).sum())
    spacing = get_numbers(headers[0], "PixelSpacing", 2)
    sideways = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1)
    if sideways.max() > max(0.1 * min(spacing), 0.02, min(2 * _ROUNDING, 0.25 * min(spacing))):
        worst = int(sideways.argmax())
        raise ValueError(
            f"{headers[worst].filename}: the slice is {sideways[worst]:.3g} mm off the line through the first slice "
            f"({files[0]}) along the normal, expected a stack at right angles to its slices, not a sheared one."
        )
    affine = np.eye(4)
    # PixelSpacing is between rows first, then between columns.
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], normal * along[-1] / (len(files) - 1)], axis=1)
    affine[:3, 3] = positions[0]
    return headers, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_image(header: Dataset) -> None:
    """Refuse a file that is not a slice of a magnitude MR image."""
    path = header.filename
    if reason := explain_image_exclusion(header):
        raise ValueError(f"{path}: {reason}")
    kind = header.get("SOPClassUID")
    if kind not in (MRImageStorage, *ENHANCED):
        raise ValueError(
            f"{path}: SOPClassUID is {format_values(header, 'SOPClassUID')}, expected MR Image Storage; export the "
            "series from its archive again, as MR images, one file a slice."
        )
    if is_mosaic(header):
        raise ValueError(
            f"{path}: a mosaic (ImageType {format_values(header, 'ImageType')}), all slices of a volume next to each "
            "other; expected one file a slice. mri-sr opens mosaics by dcm2niix: pip install dcm2niix. Or convert them "
            f"to NIfTI: dcm2niix -o FOLDER {shlex.quote(str(Path(path).parent))}."
        )
    count, samples = (get_whole_number(header, keyword, 1) for keyword in ("NumberOfFrames", "SamplesPerPixel"))
    if count != 1:
        raise ValueError(
            f"{path}: {count} frames, but no item for each in its Per-Frame Functional Groups Sequence, which says "
            "where each lies; expected one slice a file, or such items. An anonymiser may have removed them: export "
            "the series from the scanner again."
        )
    if samples != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise ValueError(
            f"{path}: {samples} samples a pixel, {header.get('PhotometricInterpretation')}; expected 1, MONOCHROME2. "
            "Colour maps and inverted images hold no signal intensities; choose another series."
        )
    for keyword in ("Rows", "Columns"):
        get_whole_number(header, keyword)
    if "ModalityLUTSequence" in header:
        raise ValueError(f"{path}: a Modality LUT, expected a linear rescale or none; export the series without it.")
    slope, _ = get_rescale(header)
    if slope == 0:
        raise ValueError(f"{path}: RescaleSlope is 0, expected a number that keeps the image; export the series again.")
    spacing = get_numbers(header, "PixelSpacing", 2)
    if min(spacing) < 1e-3 or max(spacing) > 1e3:
        raise ValueError(
            f"{path}: PixelSpacing is {format_values(header, 'PixelSpacing')}, expected two lengths from 0.001 to 1000 "
            "mm; the file is damaged or wrongly converted, export the series again."
        )
    get_numbers(header, "ImagePositionPatient", 3)
    row, column = np.reshape(get_numbers(header, "ImageOrientationPatient", 6), (2, 3))
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > _UNIT:
        raise ValueError(
            f"{path}: ImageOrientationPatient is {format_values(header, 'ImageOrientationPatient')}, expected two unit "
            "vectors at right angles; the file is damaged or wrongly converted, export the series again."
        )


def _check_equal(headers: Sequence[Dataset], keyword: str) -> None:
    """Refuse a series whose files differ in a tag that is equal in one volume."""

    def is_other(header: Dataset) -> bool:
        if keyword in ("PixelSpacing", "ImageOrientationPatient"):
            count = 2 if keyword == "PixelSpacing" else 6
            mine, first = (np.array(get_numbers(h, keyword, count)) for h in (header, headers[0]))
            return bool(np.abs(mine - first).max() > _UNIT * (first.max() if keyword == "PixelSpacing" else 1))
        return header.get(keyword) != headers[0].get(keyword)

    other = next((header for header in headers if is_other(header)), None)
    if other is not None:
        raise ValueError(
            f"the series {headers[0].SeriesInstanceUID} is not one volume: {keyword} is "
            f"{format_values(headers[0], keyword)} in {headers[0].filename} and {format_values(other, keyword)} in "
            f"{other.filename}, expected the same in all. Copy the files of one stack into a folder of its own and "
            "name that folder."
        )


def _compute_tolerance(steps: np.ndarray) -> float:
    """Allowed difference between steps in mm. Positions often have two decimals."""
    return max(0.01 * float(np.median(steps)), 0.02)


def _check_steps(uid: str, files: Sequence[str], along: np.ndarray, rounding: float) -> None:
    """Refuse slices whose spacing along their normal is uneven by more than rounding.

    Args:
        uid: SeriesInstanceUID of the series.
        files: names of the slices' files.
        along: positions of the slices in mm, ascending.
        rounding: allowed error of each position in mm.
    """
    steps = np.diff(along)
    if np.abs(steps - np.median(steps)).max() <= _compute_tolerance(steps):
        return
    # Each step as a number of even steps, first estimated by the smallest step, which rounding may have shortened.
    times = np.rint(steps / steps.min())
    times = np.rint(steps / (steps.sum() / times.sum()))
    index = np.concatenate([[0], np.cumsum(times)])
    slope, _ = np.polyfit(index, along, 1)
    fits = times.min() >= 1 and np.ptp(along - slope * index) / 2 <= max(min(rounding, 0.1 * slope), 0.01 * slope)
    missing = int((times - 1).sum())
    # If most steps are several times the smallest, the smallest is wrong, and not most slices missing.
    fits = fits and np.median(times) == 1
    if fits and missing:
        raise MissingSlicesError(
            f"the series {uid} lacks {missing} slices, the first between {files[int((times > 1).argmax())]} and the "
            f"next file: its {len(files)} slices are {steps.min():g} mm apart, but up to {steps.max():g} mm there; "
            "expected even steps. Export the whole series.",
            missing / len(files),
        )
    if not fits:
        gap = int(steps.argmax())
        raise ValueError(
            f"the series {uid} has slices {steps.min():g} to {steps.max():g} mm apart, half of them up to "
            f"{np.median(steps):g} mm, the most between {files[gap]} and {files[gap + 1]}; expected even steps, and no "
            "slice out of place. Copy the files of each stack into a folder of its own and name that folder, or export "
            "the whole series again."
        )
