"""Find copies of an image among DICOM files."""

from __future__ import annotations

import filecmp
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from .parts import get_place_and_tags
from .pixels import read_slice


def remove_copies(headers: Sequence[Dataset]) -> tuple[list[Dataset], list[str]]:
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
            alike.setdefault((*uids[:2], *get_place_and_tags(header)), []).append(header)
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
    files = {header.filename for copies in alike.values() for header in _remove_resent(copies)}
    copies = list(dict.fromkeys(Path(header.filename).name for header in headers if header.filename not in files))
    return [header for header in headers if header.filename in files], copies


def _remove_resent(headers: Sequence[Dataset]) -> list[Dataset]:
    """Of images that differ at most in UIDs and pixels, keep the first with the same pixels, and all damaged ones."""
    if len(headers) == 1:
        return [*headers]
    first_images: dict[bytes | str, Dataset] = {}
    for header in headers:
        try:
            key = hashlib.sha256(b"".join(part.tobytes() for part in read_slice(header))).digest()
        except ValueError:
            key = header.filename  # its fault is reported when it is read
        first_images.setdefault(key, header)
    return [*first_images.values()]


def _is_copy(header: Dataset, first: Dataset) -> bool:
    if filecmp.cmp(header.filename, first.filename, shallow=False):
        return True
    if header.get("ImagePositionPatient") != first.get("ImagePositionPatient"):
        return False
    return all(np.array_equal(*pair) for pair in zip(read_slice(header), read_slice(first), strict=True))
