"""Read one MR series, with the checks that other loaders lack."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import logging
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)
from scipy import ndimage

from .enhanced import check_concatenations, frames
from .kinds import ENHANCED, image_no_scan, is_mosaic, no_scan
from .parts import differences, parts, place_and_tags, split_series
from .signature import is_dicom
from .tags import name, numbers, some, text, whole

# Tags that are equal in all images of one volume.
_SAME = (
    "PatientID", "StudyInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "Rows", "Columns", "PixelSpacing",
    "ImageOrientationPatient",
)  # fmt: skip
_UID = re.compile(r"[0-9.]{1,64}")
_UNIT = 1e-3  # allowed error of direction cosines: length, right angle, difference between slices
_ROUNDING = 0.06  # mm; allowed error of a position, since some have one decimal


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
    for path in files_in(folder):
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


def without_copies(headers: Sequence[Dataset]) -> tuple[list[Dataset], list[str]]:
    """Take out the headers of copies: files of the same image and series with equal pixels.

    The same image has the same UID. Archives may give copies new UIDs, so images with equal position and distinguishing
    tags also count as the same.

    Returns:
        For each image the header with the shortest file name, in their order; and the names of the files left out.

    Raises:
        ValueError: when two files have the same UID but differ.
    """
    known: dict[tuple[str | int, ...], Dataset] = {}
    counts = Counter(uid for _, uid in {(header.filename, header.SOPInstanceUID) for header in headers})
    alike: dict[tuple[str, ...], list[Dataset]] = {}
    for header in sorted(headers, key=lambda header: len(Path(header.filename).name)):
        uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
        first = known.setdefault((*uids, getattr(header, "frame", 0)), header)
        if first is header:
            alike.setdefault((*uids[:2], *place_and_tags(header)), []).append(header)
        elif not _is_copy(header, first):
            count = counts[header.SOPInstanceUID]
            raise ValueError(
                f"{header.filename}: the SOPInstanceUID is that of {first.filename} ({header.SOPInstanceUID}), but "
                "pixels or position differ, expected one file of each image; "
                + (
                    "take the wrong one out of the folder."
                    if count == 2
                    else f"{count} files have it, perhaps by an anonymiser. Anonymise them again with a UID for each "
                    "image, or convert the folder to NIfTI with dcm2niix."
                )
            )
    kept = {header.filename for own in alike.values() for header in _without_resent(own)}
    copies = list(dict.fromkeys(Path(header.filename).name for header in headers if header.filename not in kept))
    return [header for header in headers if header.filename in kept], copies


def _without_resent(headers: Sequence[Dataset]) -> list[Dataset]:
    """Of images that differ at most in UIDs and pixels, keep the first with the same pixels, and all damaged ones."""
    if len(headers) == 1:
        return [*headers]
    kept: dict[bytes | str, Dataset] = {}
    for header in headers:
        try:
            key = hashlib.sha256(b"".join(part.tobytes() for part in _read_slice(header))).digest()
        except ValueError:
            key = header.filename  # its fault is reported when it is read
        kept.setdefault(key, header)
    return [*kept.values()]


def _is_copy(header: Dataset, first: Dataset) -> bool:
    if filecmp.cmp(header.filename, first.filename, shallow=False):
        return True
    if header.get("ImagePositionPatient") != first.get("ImagePositionPatient"):
        return False
    return all(np.array_equal(*pair) for pair in zip(_read_slice(header), _read_slice(first), strict=True))


def files_in(folder: str | os.PathLike[str]) -> list[Path]:
    """All files under a folder, also in linked folders, sorted. Hidden files are skipped."""
    found: list[Path] = []
    known: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # A link may lead back to a folder above it.
        folders[:] = [] if real in known else [name for name in folders if not name.startswith(".")]
        found += [] if real in known else [Path(parent, name) for name in names if not name.startswith(".")]
        known.add(real)
    return sorted(path for path in found if path.is_file() or path.is_symlink())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about odd values in each file. This module checks the values that matter."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


@quiet()
def read_header(path: Path) -> Dataset | None:
    """Read a DICOM image without its pixels; None for a DICOMDIR, or for a file that is not DICOM by content and name.

    Raises:
        ValueError: when the file is damaged or lacks a UID.
    """
    if path.name.upper() == "DICOMDIR":  # a damaged one is no image either
        return None
    try:
        header = _dcmread(path, stop_before_pixels=True) if is_dicom(path) else None
        if header is not None:
            _drop_unreadable(header)
    except Exception as error:
        raise ValueError(f"{path}: the DICOM header cannot be read ({error}); get a whole copy of the file.") from None
    if header is None and path.suffix.lower() in (".dcm", ".ima"):
        found = (
            "not a DICOM file, though its name says so; expected 'DICM' at byte 128, or a data set from byte 0"
            if path.exists()
            else "a link to a file that is not there, expected a DICOM file"
        )
        raise ValueError(f"{path}: {found}. Get a whole copy of the file, or take it out of the folder.")
    if header is None or header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    uids = {k: str(header.get(k) or "") for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    wrong = [keyword for keyword, uid in uids.items() if not _UID.fullmatch(uid)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} missing or no UID, expected one; export the study again.")
    return header


@quiet()
def read_images(path: Path) -> list[Dataset]:
    """Read the header of each image in a file: of each frame of an enhanced MR image, else of the file.

    Raises:
        ValueError: as :func:`read_header`.
    """
    header = read_header(path)
    return [] if header is None else frames(header)


def describe(header: Dataset, count: int, part: str = "") -> str:
    """A line about a series or a part of it, for a person who has to choose one."""
    kind = getattr(header.get("SOPClassUID"), "name", None) or "unknown kind"
    return (
        f"{header.SeriesInstanceUID}  number {header.get('SeriesNumber')}, {header.get('SeriesDescription', '')!r}, "
        f"{part}{', ' if part else ''}{header.get('Modality')}, {count} images ({kind})"
    )


def read_volume(headers: Sequence[Dataset]) -> Volume:
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


def read_voxels(headers: Sequence[Dataset]) -> np.ndarray:
    """Read the pixels of a stack.

    Args:
        headers: headers of its files, in the order of :func:`stack`.

    Returns:
        ``(slices, rows, columns)``, float32, in the units after the files' rescale.

    Raises:
        ValueError: when pixels are missing, cannot be decoded, or are all declared as padding.
    """
    opened: dict[str, Dataset] = {}
    slices, paddings = zip(*(_read_slice(header, opened) for header in headers), strict=True)
    voxels, padding = np.stack(slices), np.stack(paddings)
    if padding.all() and voxels.any():
        raise ValueError(
            f"series {headers[0].SeriesInstanceUID}: every voxel is padding by PixelPaddingValue and "
            f"PixelPaddingRangeLimit, expected an image; mend these tags, or convert the series to NIfTI with dcm2niix."
        )
    if padding.any():
        padding = _without_signal(padding, voxels, headers[0].SeriesInstanceUID)
        # Padding is no signal, so 0, or the signal value nearest to 0.
        signal = voxels[~padding] if not padding.all() else np.zeros(1, np.float32)
        changed = padding & (voxels != 0)
        voxels[changed] = np.clip(np.float32(0), signal.min(), signal.max())
        if count := np.count_nonzero(changed):
            warnings.warn(
                f"series {headers[0].SeriesInstanceUID}: {count} of {voxels.size} voxels are padding by their "
                f"PixelPaddingValue; taken for no signal, {signal.min().clip(0, signal.max()):g}.",
                stacklevel=2,
            )
    return voxels


def _without_signal(padding: np.ndarray, voxels: np.ndarray, uid: str) -> np.ndarray:
    """Take signal that has the declared padding value out of the padding, with a warning.

    Padding covers areas of at least 3 x 3 pixels, some of which may lie beyond the image. This is checked only if the
    signal has such values.

    Args:
        padding: ``(slices, rows, columns)``, true for pixels of the declared value.
        voxels: values of the same shape.
        uid: SeriesInstanceUID of the series.
    """
    signal, declared = voxels[~padding], voxels[padding]
    if not signal.size or declared.min() > signal.max() or declared.max() < signal.min():
        return padding
    block = np.ones((1, 3, 3), bool)
    areas = ndimage.binary_opening(np.pad(padding, [(0, 0), (2, 2), (2, 2)], constant_values=True), block)
    areas = ndimage.binary_propagation(areas[:, 2:-2, 2:-2], block, mask=padding)
    if count := np.count_nonzero(padding & ~areas & (voxels != 0)):
        warnings.warn(
            f"series {uid}: {count} voxels have the declared PixelPaddingValue, but lie scattered among voxels with "
            "signal of such values; taken for signal. If they are padding, mask them and convert the series to NIfTI.",
            stacklevel=3,
        )
    return areas


def stack(headers: Sequence[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Sort the headers of one part of a series along the slices' normal, and compute the affine of the stack.

    Raises:
        ValueError: when the part is not one stack of evenly spaced magnitude MR slices; the message names the file,
            what was found, what was expected and what to do.
    """
    for header in headers:
        _check_image(header)
    for keyword in _SAME:
        _check_same(headers, keyword)
    return _stack(headers)


def rescale(header: Dataset) -> tuple[float, float]:
    """Slope and intercept from stored integers to the image's units; 1 and 0 if the file has none."""
    slope = numbers(header, "RescaleSlope", 1)[0] if "RescaleSlope" in header else 1.0
    intercept = numbers(header, "RescaleIntercept", 1)[0] if "RescaleIntercept" in header else 0.0
    return slope, intercept


def _check_image(header: Dataset) -> None:
    """Refuse a file that is not a slice of a magnitude MR image."""
    path = header.filename
    if reason := image_no_scan(header):
        raise ValueError(f"{path}: {reason}")
    kind = header.get("SOPClassUID")
    if kind not in (MRImageStorage, *ENHANCED):
        raise ValueError(
            f"{path}: SOPClassUID is {text(header, 'SOPClassUID')}, expected MR Image Storage; export the series from "
            "its archive again, as MR images, one file a slice."
        )
    if is_mosaic(header):
        raise ValueError(
            f"{path}: a mosaic (ImageType {text(header, 'ImageType')}), all slices of a volume next to each other; "
            f"expected one file a slice. {_to_nifti(path)}"
        )
    count, samples = (whole(header, keyword, 1) for keyword in ("NumberOfFrames", "SamplesPerPixel"))
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
        whole(header, keyword)
    if "ModalityLUTSequence" in header:
        raise ValueError(f"{path}: a Modality LUT, expected a linear rescale or none; export the series without it.")
    slope, _ = rescale(header)
    if slope == 0:
        raise ValueError(f"{path}: RescaleSlope is 0, expected a number that keeps the image; export the series again.")
    spacing = numbers(header, "PixelSpacing", 2)
    if min(spacing) < 1e-3 or max(spacing) > 1e3:
        raise ValueError(
            f"{path}: PixelSpacing is {text(header, 'PixelSpacing')}, expected two lengths from 0.001 to 1000 mm; the "
            "file is damaged or wrongly converted, export the series again."
        )
    numbers(header, "ImagePositionPatient", 3)
    row, column = np.reshape(numbers(header, "ImageOrientationPatient", 6), (2, 3))
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > _UNIT:
        raise ValueError(
            f"{path}: ImageOrientationPatient is {text(header, 'ImageOrientationPatient')}, expected two unit "
            "vectors at right angles; the file is damaged or wrongly converted, export the series again."
        )


def _to_nifti(path: str) -> str:
    """Advice for files that hold more than one slice."""
    folder = shlex.quote(str(Path(path).parent))
    return f"Convert them to NIfTI, which splits them into volumes: dcm2niix -o FOLDER {folder}."


def _check_same(headers: Sequence[Dataset], keyword: str) -> None:
    """Refuse a series whose files differ in a tag that is equal in one volume."""

    def differs(header: Dataset) -> bool:
        if keyword in ("PixelSpacing", "ImageOrientationPatient"):
            count = 2 if keyword == "PixelSpacing" else 6
            mine, first = (np.array(numbers(h, keyword, count)) for h in (header, headers[0]))
            return bool(np.abs(mine - first).max() > _UNIT * (first.max() if keyword == "PixelSpacing" else 1))
        return header.get(keyword) != headers[0].get(keyword)

    other = next((header for header in headers if differs(header)), None)
    if other is not None:
        raise ValueError(
            f"the series {headers[0].SeriesInstanceUID} is not one volume: {keyword} is {text(headers[0], keyword)} "
            f"in {headers[0].filename} and {text(other, keyword)} in {other.filename}, expected the same in all. "
            "Copy the files of one stack into a folder of its own and name that folder."
        )


def _stack(headers: Sequence[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Sort slices along their normal and give the affine of the stack, if it is an even one."""
    uid = headers[0].SeriesInstanceUID
    if len(headers) < 2:
        raise ValueError(
            f"{headers[0].filename}: the only image of the series {uid}, expected a stack of slices; choose another "
            "series, or export the whole one."
        )
    row, column = np.reshape(numbers(headers[0], "ImageOrientationPatient", 6), (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    positions = np.array([numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    headers, positions = [headers[i] for i in order], positions[order]
    files = [name(header) for header in headers]
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    if steps.min() <= _tolerance(steps):
        i = int(steps.argmin())
        raise ValueError(
            f"the series {uid} has several images at one place, {files[i]} and {files[i + 1]} (they differ in "
            f"{differences(headers[i], headers[i + 1])}), expected one. Copy the files of one echo, time point or "
            "diffusion weighting into a folder of its own and name that folder."
        )
    instances = Counter(text(header, "InstanceNumber") for header in headers)
    is_classic = not hasattr(headers[0], "frame")  # frames may have the number of their file
    if is_classic and len(instances) > 1 and (times := min(instances.values())) > 1:
        raise ValueError(
            f"the series {uid} has {times} slices or more of each InstanceNumber, expected one: they look like {times} "
            "stacks that lie between each other. Copy the files of one stack into a folder of its own and name that "
            "folder."
        )
    _check_steps(uid, files, along, _ROUNDING * np.abs(normal).sum())
    spacing = numbers(headers[0], "PixelSpacing", 2)
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


def _tolerance(steps: np.ndarray) -> float:
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
    if np.abs(steps - np.median(steps)).max() <= _tolerance(steps):
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
        raise ValueError(
            f"the series {uid} lacks {missing} slices, the first between {files[int((times > 1).argmax())]} and the "
            f"next file: its {len(files)} slices are {steps.min():g} mm apart, but up to {steps.max():g} mm there; "
            "expected even steps. Export the whole series."
        )
    if not fits:
        gap = int(steps.argmax())
        raise ValueError(
            f"the series {uid} has slices {steps.min():g} to {steps.max():g} mm apart, half of them up to "
            f"{np.median(steps):g} mm, the most between {files[gap]} and {files[gap + 1]}; expected even steps, and no "
            "slice out of place. Copy the files of each stack into a folder of its own and name that folder, or export "
            "the whole series again."
        )


@quiet()
def _read_slice(header: Dataset, opened: dict[str, Dataset] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a file or frame in its units, float32; and which of them it declares as padding.

    Args:
        header: of the image.
        opened: the file that was read last, by its path, so that it is not read again for each of its frames.
    """
    path, index = header.filename, getattr(header, "frame", 0)
    slope, intercept = rescale(header)
    opened = {} if opened is None else opened
    try:
        if path not in opened:
            opened.clear()
            opened[path] = _dcmread(path)
        image = opened[path]
        syntax = image.file_meta.TransferSyntaxUID
        compressed = syntax.is_compressed
    except Exception as error:
        raise ValueError(f"{path}: the file cannot be read ({error}); get a whole copy of it.") from None
    if "FloatPixelData" in image or "DoubleFloatPixelData" in image:
        raise ValueError(
            f"{path}: pixels as floating-point numbers (Float Pixel Data), which an MR image cannot have; expected "
            "integers (Pixel Data). Export the series from the scanner, or convert it to NIfTI."
        )
    if "PixelData" not in image:
        raise ValueError(f"{path}: no pixel data, expected an image; export the series with its pixels.")
    try:
        pixels = pixel_array(image, index=index)
        padding = _padding(header, image, pixels)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: the pixel data cannot be decoded ({reason}). "
            + (
                f"They are compressed, {syntax.name}; {_decoders(syntax)}"
                if compressed
                else "The file does not say how they are compressed; export the series uncompressed."
                if image["PixelData"].is_undefined_length
                else "The file is damaged, get a whole copy of it."
            )
        ) from None
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError(f"{path}: pixels of shape {pixels.shape}, expected {(header.Rows, header.Columns)}.")
    with np.errstate(over="ignore"):
        values = (pixels * slope + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give values beyond those of float32; "
            "the file is damaged, export the series again."
        )
    return values, padding


def _decoders(syntax: UID) -> str:
    """What to do if pixels of a transfer syntax cannot be decoded."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return "pydicom has no decoder for this. Export the series uncompressed."
    found = "the file is damaged or of another kind, get a whole copy of it" if decoder.is_available else ""
    packages = re.findall("pylibjpeg-[a-z]+", " ".join(decoder.missing_dependencies))
    other = f"install {'another' if found else 'a'} decoder, pip install pylibjpeg {packages[0]}" if packages else ""
    return f"{'; or '.join(filter(None, (found, other)))}; or export the series uncompressed."


def _padding(header: Dataset, image: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Which pixels are declared as padding: from PixelPaddingValue to PixelPaddingRangeLimit, if there is one."""
    first, last = (_stored(header.get(k), image) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if first is None:
        return np.zeros(pixels.shape, dtype=bool)
    low, high = sorted((first, first if last is None else last))
    padding = (pixels >= low) & (pixels <= high)
    if image.BitsStored < image.BitsAllocated and not image.file_meta.TransferSyntaxUID.is_compressed:
        # Padding may need bits above BitsStored, which decoding removes.
        words = pixel_array(image, index=getattr(header, "frame", 0), correct_unused_bits=False)
        padding |= (words >= low) & (words <= high)
    return padding


def _stored(value: Any, image: Dataset) -> int | None:
    """An attribute's value as a stored pixel, whichever sign it was written with; None if it is not a number."""
    if isinstance(value, bytes) and value:
        value = int.from_bytes(value, "little")
    if not isinstance(value, int):
        return None
    bits = image.BitsAllocated
    value %= 1 << bits
    return value - (1 << bits) if image.PixelRepresentation == 1 and value >> (bits - 1) else value


def _dcmread(path: str | os.PathLike, **options: Any) -> Dataset:
    """Read a file for which :func:`is_dicom` is true, with or without 'DICM'. A missing transfer syntax is set."""
    image = dcmread(path, force=True, **options)
    if "TransferSyntaxUID" not in image.file_meta:
        implicit, little = image.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return image


def _drop_unreadable(header: Dataset) -> None:
    """Remove attributes whose values do not fit their type, which some scanners and converters write.

    If a volume needs one of them, it is reported as missing later.
    """
    for tag in list(header.keys()):
        try:
            header[tag]
        except Exception:
            del header[tag]
