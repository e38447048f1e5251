"""Volumes on disk: the formats that are read, and one way to open them."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel import imageglobals
from nibabel.fileholders import FileHolder
from nibabel.imageclasses import all_image_classes
from nibabel.spatialimages import SpatialImage

from .image_headers import UnfitError, analyze_notes, no_orientation, read_header, repair_nifti
from .itk_images import open_itk

# What open_image reads, the longest first. Of a pair of files the one with the header counts.
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img", ".head", ".nrrd", ".nhdr", ".mha", ".mhd")

_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_FORMATS = "NIfTI (.nii or .nii.gz), .mgz, .hdr with .img, AFNI, NRRD or MetaImage"
_POINTERS = {b"/annex/objects/": "annex", b"version https://git-lfs": "lfs"}  # as what they stand for begins
_POINTER_BYTES = 4096  # more than a pointer has
_GOOD_RAS = 28  # byte of an MGH header's flag, which nibabel sets to 1 where it is 0


def ending(path: str | os.PathLike) -> str | None:
    """The ending of a file's name, in lower case, where it is that of a format that :func:`open_image` reads."""
    name = Path(path).name.lower()
    return next((end for end in ENDINGS if name.endswith(end)), None)


def open_image(path: str | os.PathLike) -> SpatialImage:
    """Open a volume without reading its voxels.

    Where a header is wrong and it is certain what was meant, the image is as if it had been written right.

    Args:
        path: of a file with one of :data:`ENDINGS`, or of another kind that nibabel reads.

    Returns:
        The image; its affine is in mm. ``extra["notes"]`` has a sentence for each repair, and for what was assumed.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        with _nibabel_silent():
            return open_itk(path) if ending(path) in _ITK else _open_nibabel(path)
    except UnfitError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # nibabel's formats have errors of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{path}: not a readable image ({reason}); {_advice(path)}.") from None


def image_or_none(path: str | os.PathLike) -> SpatialImage | None:
    """What :func:`open_image` opens; None where a path is of no such file, as of a volume that a client has loaded."""
    try:
        return open_image(path)
    except (ValueError, OSError):
        return None


def missing_content(path: str | os.PathLike) -> str | None:
    """Why the content of a file is not here: a link whose target is missing, or what git-annex and Git LFS leave."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in target.replace("\\", "/"):
            return _absent(path, "annex")
        return f"it links to {target}, which is not there; put that there, or remove the link."
    if not path.is_file() or path.stat().st_size > _POINTER_BYTES:
        return None
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None  # the reader says what is wrong with it
    return next((_absent(path, kind) for begin, kind in _POINTERS.items() if start.startswith(begin)), None)


@contextmanager
def _nibabel_silent() -> Iterator[None]:
    """Keep nibabel from printing what it mends in a header, without the file's name."""
    level = imageglobals.logger.level
    imageglobals.logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        imageglobals.logger.setLevel(level)


def _open_nibabel(path: Path) -> SpatialImage:
    """An image of a format that nibabel knows, its header repaired."""
    kind = _kind(path)
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
    header, notes = read_header(kind, files.get("header", files["image"]))
    if not issubclass(kind, nib.Nifti1Pair):
        image = nib.load(path)
        image.extra["notes"] = analyze_notes(image, header)
        return image
    notes += repair_nifti(header)
    affine = header.get_best_affine()
    if not header["sform_code"] and not header["qform_code"]:
        notes.append(no_orientation(affine, "sform and qform codes are 0"))
    voxels = kind.ImageArrayProxy(files["image"].filename, header.copy())
    return kind(voxels, affine, header, file_map=files, extra={"notes": notes})


def _open_mgh(path: Path) -> nib.MGHImage:
    """An image of FreeSurfer's format; nibabel would leave its file open, and not say that it has no orientation."""
    files = nib.MGHImage.filespec_to_file_map(str(path))
    with files["image"].get_prepare_fileobj(mode="rb") as opened:
        header = nib.MGHImage.header_class.from_fileobj(opened)
        opened.seek(_GOOD_RAS)
        placed = any(opened.read(2))
    affine = header.get_affine()
    notes = [] if placed else [no_orientation(affine, "its goodRASFlag is 0")]
    voxels = nib.MGHImage.ImageArrayProxy(files["image"].filename, header.copy())
    return nib.MGHImage(voxels, affine, header, file_map=files, extra={"notes": notes})


def _kind(path: Path) -> type | None:
    """The class of images that nibabel takes a file for, by its name and its first bytes."""
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


def _advice(path: Path) -> str:
    """What helps with a file that cannot be read, as its first bytes show."""
    if (absent := missing_content(path)) is not None:
        return absent.rstrip(".")
    header = path.with_suffix(".hdr")
    if path.suffix == ".img" and not header.is_file():
        return f"its header is in {header.name}, which is not there; put both in one folder"
    try:
        with path.open("rb") as file:
            first = file.read(132)
    except OSError:
        return "make it readable, or get a whole copy of it"
    compressed, named_so = first.startswith(b"\x1f\x8b"), path.name.lower().endswith((".gz", ".mgz"))
    if not first:
        return "it is empty, get a whole copy of it"
    if first.endswith(b"DICM"):
        return "it is a DICOM file; name the folder of its series"
    if compressed and not named_so:
        return "it is compressed by gzip; add .gz to its name"
    if named_so and not compressed:
        plain = any(int.from_bytes(first[:4], order) in (348, 540) for order in ("little", "big"))
        return f"it is not compressed by gzip; {'take .gz off its name' if plain else 'get a whole copy of it'}"
    return f"expected {_FORMATS}"


def _absent(path: Path, kind: str) -> str:
    file = shlex.quote(str(path))
    how = {"annex": f"datalad get {file}, or git annex get {file}", "lfs": "git lfs pull"}[kind]
    return f"its content is not here; get it with: {how}"
