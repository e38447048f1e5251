"""Recognise DICOM by a file's first bytes. Imports no other package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
