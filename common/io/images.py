"""Open volumes of all supported formats."""

from __future__ import annotations

import functools
import gzip
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.fileholders import FileHolder
from nibabel.imageclasses import all_image_classes
from nibabel.spatialimages import SpatialImage

from .formats import explain_missing_content, get_extension
from .image_headers import (
    KEPT,
    UnfitError,
    describe_analyze,
    describe_assumed_orientation,
    read_repaired_header,
    repair_nifti,
)

_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_FORMATS = "NIfTI (.nii or .nii.gz), .mgz, .hdr with .img, AFNI, NRRD or MetaImage"
# Of other files, by their first bytes: what they are, and what helps.
_OTHERS = {
    b"PK\x03\x04": "it is a zip archive; unzip it",
    b"BZh": "it is compressed by bzip2; decompress it with bunzip2",
    b"\xfd7zXZ": "it is compressed by xz; decompress it with unxz",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd; decompress it with unzstd",
    b"7z\xbc\xaf": "it is a 7z archive; extract it",
    b"Rar!": "it is a RAR archive; extract it",
    b"<": "it is a web page or XML, perhaps of a login that a download needs; get the scan again",
}
_GZIP = b"\x1f\x8b"
_KEPT_HEADERS = 1024
_SETTLED = 10**8  # ns after a change, from when on the time of the last change tells a new content
_GOOD_RAS = 28  # byte of an MGH header's flag, which nibabel sets to 1 where it is 0


def open_image(path: str | os.PathLike) -> SpatialImage:
    """Open a volume without reading its voxels.

    Faults in the header are repaired if their correction is certain. While a file does not change, all calls return the
    same image, so its affine, header and ``extra`` must not be changed.

    Args:
        path: a file with one of :data:`EXTENSIONS`, or of another format that nibabel reads.

    Returns:
        The image; its affine is in mm. ``extra["notes"]`` has a sentence for each repair and each assumption.
        ``extra["has_orientation"]`` is false where NIfTI or Analyze gives none, and the affine is assumed.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"{path}: found a folder, expected a file; of a DICOM series, use mri-sr, or convert it to NIfTI."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    state = path.stat()
    is_settled = time.time_ns() - state.st_mtime_ns > _SETTLED
    open_once = _open_file if is_settled else _open_file.__wrapped__
    return open_once(path, (state.st_ino, state.st_size, state.st_mtime_ns))


@functools.lru_cache(_KEPT_HEADERS)
def _open_file(path: Path, state: tuple[int, ...]) -> SpatialImage:
    """Open a file; ``state`` is another when its content is."""
    if get_extension(path) in _ITK:
        try:
            from .itk_images import open_itk  # exported bundles lack it
        except ImportError:
            raise ValueError(f"{path}: NRRD and MetaImage cannot be read here; convert it to NIfTI.") from None
    try:
        with _silence_nibabel():
            return open_itk(path) if get_extension(path) in _ITK else _open_nibabel(path)
    except UnfitError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # nibabel has own errors for each format
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{path}: not a readable image ({reason}); {_advise(path)}.") from None


def open_image_or_none(path: str | os.PathLike) -> SpatialImage | None:
    """The image by :func:`open_image`; None if that fails, for example for a volume that a client has loaded."""
    try:
        return open_image(path)
    except (ValueError, OSError):
        return None


@contextmanager
def _silence_nibabel() -> Iterator[None]:
    """Silence nibabel's messages about repaired headers, which do not name the file."""
    level = imageglobals.logger.level
    imageglobals.logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        imageglobals.logger.setLevel(level)


def _open_nibabel(path: Path) -> SpatialImage:
    """Open an image of a format that nibabel knows, and repair its header."""
    kind = _find_image_class(path)
    if kind is nib.MGHImage:
        return _open_mgh(path)
    if kind is None or not issubclass(kind, nib.AnalyzeImage):
        image: Any = nib.load(path)
        if not isinstance(image, SpatialImage):
            raise UnfitError(f"it holds {type(image).__name__}, expected a volume; leave it out.")
        _check_partner(image.file_map)
        return image
    files = kind.filespec_to_file_map(str(path))
    _check_partner(files)
    header, notes = read_repaired_header(kind, files.get("header", files["image"]))
    if not issubclass(kind, nib.Nifti1Pair):
        image = nib.load(path)
        notes = describe_analyze(image, header)
        image.extra |= {"notes": notes, "has_orientation": not notes}
        return image
    notes += repair_nifti(header)
    affine = header.get_best_affine()
    has_orientation = bool(header["sform_code"] or header["qform_code"])
    if not has_orientation:
        sform = header.get_sform()
        if np.allclose(sform[:3, :3], affine[:3, :3], rtol=1e-4):  # of a result: where it lies on its scan
            affine = sform
        notes.append(describe_assumed_orientation(affine, "sform and qform codes are 0") + KEPT)
    voxels = kind.ImageArrayProxy(files["image"].filename, header.copy())
    return kind(voxels, affine, header, file_map=files, extra={"notes": notes, "has_orientation": has_orientation})


def _open_mgh(path: Path) -> nib.MGHImage:
    """Open an image of FreeSurfer's format. nibabel would leave the file open and hide a missing orientation."""
    files = nib.MGHImage.filespec_to_file_map(str(path))
    with files["image"].get_prepare_fileobj(mode="rb") as opened:
        header = nib.MGHImage.header_class.from_fileobj(opened)
        opened.seek(_GOOD_RAS)
        has_orientation = any(opened.read(2))
    affine = header.get_affine()
    notes = [] if has_orientation else [describe_assumed_orientation(affine, "its goodRASFlag is 0")]
    voxels = nib.MGHImage.ImageArrayProxy(files["image"].filename, header.copy())
    return nib.MGHImage(voxels, affine, header, file_map=files, extra={"notes": notes})


def _find_image_class(path: Path) -> type | None:
    """nibabel's image class for a file, by its name and first bytes; None if it has none."""
    first = None
    for kind in all_image_classes:
        fits, first = kind.path_maybe_image(str(path), first)
        if fits:
            return kind
    return None


def _check_partner(files: Mapping[str, FileHolder]) -> None:
    """Refuse half of a pair of files."""
    for name, file in files.items():
        if name in ("header", "image") and file.filename is not None and not Path(file.filename).is_file():
            raise UnfitError(
                f"its {name} is in {Path(file.filename).name}, which is not there; put both in one folder."
            )


def _advise(path: Path) -> str:
    """Advice for a file that cannot be read, by its first bytes."""
    if (absent := explain_missing_content(path)) is not None:
        return absent.rstrip(".")
    header = path.with_suffix(".hdr")
    if path.suffix == ".img" and not header.is_file():
        return f"its header is in {header.name}, which is not there; put both in one folder"
    try:
        with path.open("rb") as file:
            first = file.read(132)
    except OSError:
        return "make it readable, or get a whole copy of it"
    compressed, named_so = first.startswith(_GZIP), path.name.lower().endswith((".gz", ".mgz"))
    if not first:
        return "it is empty, get a whole copy of it"
    if first.endswith(b"DICM"):
        return "it is a DICOM file; use mri-sr, or convert its series to NIfTI"
    for begin, advice in _OTHERS.items():
        if first.lstrip().startswith(begin):
            return advice
    if compressed and _decompress_start(path).startswith(_GZIP):
        return "it is compressed twice by gzip; decompress it once, by gunzip"
    if compressed and not named_so:
        return "it is compressed by gzip; add .gz to its name"
    if named_so and not compressed:
        plain = any(int.from_bytes(first[:4], order) in (348, 540) for order in ("little", "big"))
        return f"it is not compressed by gzip; {'take .gz off its name' if plain else 'get a whole copy of it'}"
    return f"expected {_FORMATS}"


def _decompress_start(path: Path) -> bytes:
    """The first bytes that a file compressed by gzip holds; none if it is damaged."""
    try:
        with gzip.open(path) as file:
            return file.read(len(_GZIP))
    except (OSError, EOFError, zlib.error):
        return b""
