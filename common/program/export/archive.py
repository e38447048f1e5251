"""Zips of bundles: the same files give the same bytes."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from pathlib import Path

from ...io.writing import write_atomically


def write_zip(folder: Path, path: Path) -> str:
    """Write a folder, under its own name, as a zip, with its SHA-256 in ``<name>.zip.sha256`` for ``sha256sum -c``.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    with write_atomically(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                # Time and umask must not change the bytes.
                info = zipfile.ZipInfo(file.relative_to(folder.parent).as_posix())
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, file.read_bytes())
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    with write_atomically(path.with_name(f"{path.name}.sha256")) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n")
    return digest
