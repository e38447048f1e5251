"""The formats of files by their names and first bytes, and files whose content is not here."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

# Endings that open_image reads, the longest first. Of a pair of files, open the one with the header.
EXTENSIONS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img", ".head", ".nrrd", ".nhdr", ".mha", ".mhd")

_POINTERS = {b"/annex/objects/": "annex", b"version https://git-lfs": "lfs"}  # first bytes of the pointers
_POINTER_BYTES = 4096  # more than a pointer has


def get_extension(path: str | os.PathLike) -> str | None:
    """The ending of a file's name in lower case; None if that format is not read."""
    name = Path(path).name.lower()
    return next((end for end in EXTENSIONS if name.endswith(end)), None)


def advise_volume(path: str | os.PathLike) -> str:
    """How to take one volume out of a 4-D file, by a program that comes with nibabel."""
    first = "" if get_extension(path) not in (".nrrd", ".nhdr", ".mha", ".mhd") else "convert it to NIfTI, and "
    return f"{first}take out a volume, such as the first: nib-roi -t 0:1 {shlex.quote(str(path))} VOLUME.nii.gz"


def explain_missing_content(path: str | os.PathLike) -> str | None:
    """Why the content of a file is not here: a broken link, or a pointer of git-annex or Git LFS; None if it is."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in target.replace("\\", "/"):
            return _explain_pointer(path, "annex")
        return f"it links to {target}, which does not exist; add that file, or remove the link."
    if not path.is_file() or path.stat().st_size > _POINTER_BYTES:
        return None
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None  # the reader reports the fault
    return next((_explain_pointer(path, kind) for begin, kind in _POINTERS.items() if start.startswith(begin)), None)


def _explain_pointer(path: Path, kind: str) -> str:
    file = shlex.quote(str(path))
    how = {"annex": f"datalad get {file}, or git annex get {file}", "lfs": "git lfs pull"}[kind]
    return f"its content is not here; get it with: {how}"
