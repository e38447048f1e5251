"""Read the headers of the images in DICOM files."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from .enhanced import split_frames
from .recognition import is_dicom

_UID = re.compile(r"[0-9.]{1,64}")


@contextlib.contextmanager
def silence_pydicom() -> Iterator[None]:
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


@silence_pydicom()
def read_dicom_header(path: Path) -> Dataset | None:
    """Read a DICOM image without its pixels; None for a DICOMDIR, or for a file that is not DICOM by content and name.

    Raises:
        ValueError: when the file is damaged or lacks a UID.
    """
    if path.name.upper() == "DICOMDIR":  # a damaged one is no image either
        return None
    try:
        header = open_file(path, stop_before_pixels=True) if is_dicom(path) else None
        if header is not None:
            _drop_unreadable(header)
    except Exception as error:
        raise ValueError(f"{path}: the DICOM header cannot be read ({error}); get a whole copy of the file.") from None
    if header is None and path.suffix.lower() in (".dcm", ".ima"):
        is_dicom_file = (
            "not a DICOM file, though its name says so; expected 'DICM' at byte 128, or a data set from byte 0"
            if path.exists()
            else "a link to a file that is not there, expected a DICOM file"
        )
        raise ValueError(f"{path}: {is_dicom_file}. Get a whole copy of the file, or take it out of the folder.")
    if header is None or header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    uids = {k: str(header.get(k) or "") for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    wrong = [keyword for keyword, uid in uids.items() if not _UID.fullmatch(uid)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} missing or no UID, expected one; export the study again.")
    return header


@silence_pydicom()
def read_images(path: Path) -> list[Dataset]:
    """Read the header of each image in a file: of each frame of an enhanced MR image, else of the file.

    Raises:
        ValueError: as :func:`read_dicom_header`.
    """
    header = read_dicom_header(path)
    return [] if header is None else split_frames(header)


def open_file(path: str | os.PathLike, **options: Any) -> Dataset:
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
