"""Recognise DICOM by a file's first bytes or its name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...io.formats import explain_missing_content

_VRS = set(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # their length has 32 bits, after two unused bytes
# Names of files of voxels, which may begin as a data set does.
_VOXELS = tuple(".mgz .mgh .hdr .img .head .brik .brik.gz .nrrd .nhdr .mha .mhd .raw .raw.gz .zraw".split())
_START = 1024  # bytes to read
_ELEMENTS = 3  # elements that must follow each other if 'DICM' is missing


def is_dicom(path: str | os.PathLike) -> bool:
    """Whether a file is DICOM: 'DICM' at byte 128, or a data set from byte 0, as archives and old scanners write it.

    Args:
        path: any path. False for names of NIfTI and paths that are not files, and for names of other volume formats
            without 'DICM'.

    Returns:
        Whether its first bytes are those of DICOM.

    Raises:
        OSError: when the file cannot be read.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")) or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_START)
    if start[128:132] == b"DICM":
        return True
    return not name.endswith(_VOXELS) and any(_is_data_set(start, order) for order in ("little", "big"))


def _is_data_set(start: bytes, order: Any) -> bool:
    """Whether bytes begin with elements from group 2 or 8 with ascending tags, in implicit or explicit VR."""
    at, count, last = 0, 0, (0, 0)
    while count < _ELEMENTS:
        if at + 8 > len(start):
            return False
        group, element = (int.from_bytes(start[i : i + 2], order) for i in (at, at + 2))
        # After group 2 the byte order may change, so the rest is not checked.
        if count and last[0] == 2 and group != 2:
            return True
        if (group not in (2, 8)) if not count else (group, element) <= last:
            return False
        vr = start[at + 4 : at + 6]
        if group == 2 and vr not in _VRS:  # group 2 always has explicit VR
            return False
        if vr in _LONG:
            size, head = int.from_bytes(start[at + 8 : at + 12], order), 12
        elif vr in _VRS:
            size, head = int.from_bytes(start[at + 6 : at + 8], order), 8
        else:
            size, head = int.from_bytes(start[at + 4 : at + 8], order), 8
        at, count, last = at + head + size, count + 1, (group, element)
    return at <= len(start)


def enter_dicomdir(path: Path) -> Path:
    """The folder of a DICOMDIR, which lists the files next to it; any other path as it is."""
    return path.parent if path.name.upper() == "DICOMDIR" and path.is_file() else path


def is_named_as_dicom(path: Path) -> bool:
    """Whether a file's name is that of a DICOM image, whatever its content."""
    return path.name.lower().endswith((".dcm", ".ima"))


def may_be_dicom(path: Path) -> bool:
    """Whether a file is DICOM; if it cannot be read, whether it is named so."""
    try:
        return is_dicom(path)
    except OSError:
        return is_named_as_dicom(path)


def find_absent_images(files: Iterable[Path]) -> dict[Path, str]:
    """DICOM files whose content is missing, each with the reason.

    Many DICOM files have names without an ending. Such a name counts if the folder has DICOM files, or has only
    several such names.
    """
    files_by_folder: dict[Path, list[Path]] = {}
    for file in files:
        files_by_folder.setdefault(file.parent, []).append(file)
    reasons: dict[Path, str] = {}
    for files_of_folder in files_by_folder.values():
        # A UID ends in a point and a number, which is not a file ending.
        candidates = [file for file in files_of_folder if is_named_as_dicom(file) or not file.suffix[1:2].isalpha()]
        absent = {file: reason for file in candidates if (reason := explain_missing_content(file)) is not None}
        # A single one is not a stack, and may be a link to a folder that no longer exists.
        if absent and (
            len(absent) == len(files_of_folder) > 1
            or any(is_named_as_dicom(file) or may_be_dicom(file) for file in files_of_folder)
        ):
            reasons |= absent
    return reasons
