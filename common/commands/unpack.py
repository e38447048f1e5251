"""``python -m common unpack``: check the zip of a bundle and unpack it."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

from ..export.archive import compute_sha256
from ..io.writing import check_writable, open_part_folder

LIMIT = 4 * 2**30  # bytes: the largest size of an unpacked bundle


class RefusedError(ValueError):
    """An intact zip that must not be unpacked."""


def unpack_bundle(zip_file: str, output_dir: str, sha256: str | None = None) -> None:
    """Check the zip of a bundle and unpack it; nothing in it is run.

    Args:
        zip_file: path of the zip.
        output_dir: folder that the bundle's folder is made in; it must not be there yet.
        sha256: 64 hexadecimal digits that the zip must have, from whoever made it; default those in
            ``<zip_file>.sha256``, where there is such a file.

    Raises:
        FileNotFoundError: when there is no such zip.
        FileExistsError: when the bundle's folder is there already.
        ValueError: when the SHA-256 differs, the file is no zip or damaged, it would unpack to more than 4 GiB or out
            of its folder, or it is not one folder of plain files with configs/metadata.json.
        OSError: when output_dir cannot be written to, or has no space left.
    """
    path = Path(zip_file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; --zip_file names the zip of an exported bundle.")
    beside = path.with_name(f"{path.name}.sha256")
    if sha256 is None and beside.is_file():
        sha256 = (beside.read_text(errors="replace").split() or [""])[0]
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise ValueError(
            f"the SHA-256 for {path} is '{sha256}', expected 64 hexadecimal digits, in --sha256 or {beside}."
        )
    digest = compute_sha256(path)
    if sha256 is not None and digest != str(sha256).lower():
        raise ValueError(f"{path}: its SHA-256 is {digest}, expected {sha256}; it is not the file that was published.")
    check_writable(output_dir)
    output = Path(output_dir)
    try:
        with zipfile.ZipFile(path) as archive:
            name = _check_members(path, archive)
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of '{damaged}' is wrong")
    except RefusedError:
        raise
    except Exception as error:  # a damaged header may make zipfile raise any error
        raise ValueError(f"{path}: the zip is damaged or of an unknown kind ({error}); fetch it again.") from None
    if (output / name).exists():
        raise FileExistsError(f"{output / name} is there already; remove it, or name another --output_dir.")
    is_new = not output.exists()
    try:
        with zipfile.ZipFile(path) as archive, open_part_folder(output) as temporary:
            archive.extractall(temporary)
            (temporary / name).rename(output / name)  # fails if another process has made it by now
    except OSError as error:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                output.rmdir()
        raise OSError(f"cannot unpack to {output / name}: {error}; make room, or name another --output_dir.") from None
    print(f"{output / name}: SHA-256 {digest}{'' if sha256 else ', not verified: give --sha256'}")


def _check_members(path: Path, archive: zipfile.ZipFile) -> str:
    """Refuse a zip that is not one folder of plain files with a bundle; return the folder's name."""
    members = archive.infolist()
    tops: set[str] = set()
    for member in members:
        name = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.orig_filename != member.filename:
            raise RefusedError(f"{path}: holds the path {member.orig_filename!r}, which is no file's name; refused.")
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in member.filename:
            raise RefusedError(f"{path}: holds the path '{member.filename}', which leads out of its folder; refused.")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise RefusedError(f"{path}: '{member.filename}' is a link or device, expected plain files; refused.")
        tops.update(name.parts[:1])
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise RefusedError(f"{path}: holds a path twice; refused.")
    size = sum(member.file_size for member in members)
    if size > LIMIT:
        raise RefusedError(
            f"{path}: would unpack to {size / 2**30:.1f} GiB, expected at most {LIMIT / 2**30:.0f}; refused."
        )
    top = next(iter(tops), "")
    if len(tops) != 1 or not re.fullmatch(r"\w[\w.-]*", top):
        contents = ", ".join(sorted(tops)[:5]) or "nothing"
        raise RefusedError(f"{path}: holds {contents}, expected one folder, named with letters, digits, _, - and dots.")
    if f"{top}/configs/metadata.json" not in names:
        raise RefusedError(f"{path}: its folder {top} has no configs/metadata.json, as a bundle has; refused.")
    try:
        json.loads(archive.read(f"{top}/configs/metadata.json"))
    except ValueError as error:
        raise RefusedError(f"{path}: its {top}/configs/metadata.json is not JSON ({error}); refused.") from None
    return top
