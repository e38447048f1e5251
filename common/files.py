"""Files are written whole or not at all, and those that cannot be read or written are named."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["check_writable", "load_state", "replacing"]


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to, and move it there when the block ends without an error.

    The name ends like ``path``, as writers choose their format by the ending, and begins with a dot, as patterns then
    pass it over. It is always the same, so that what a killed process leaves is overwritten by the next.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The temporary name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(*folders: str | os.PathLike) -> None:
    """Refuse folders that results could not be written to. Nothing is left behind.

    Args:
        folders: each may be there already or not yet.

    Raises:
        NotADirectoryError: when a file stands in a folder's place or above it.
        PermissionError: when the folder, or the one that it would be made in, may not be written to.
    """
    for folder in folders:
        place = Path(folder).absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(f"cannot write to {folder}: {place} is a file; name another folder.")
        try:
            # Tried, because permissions alone do not tell (root, read-only mounts).
            os.rmdir(tempfile.mkdtemp(dir=place))
        except OSError as error:
            raise PermissionError(f"cannot write to {folder}: {error}; name another folder.") from None


def load_state(path: Path, device: torch.device | str) -> Any:
    """``torch.load`` with ``weights_only=True``, of a file whose checksums are right.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read, is damaged, or holds objects whose code loading would run; or when the
            device is a GPU and there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}.")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch finds no GPU; leave it out, or set it to cpu.")
    try:
        # torch reads past checksums that are wrong.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} in it is wrong, the file is damaged")
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "weights_only" in reason or "Weights only" in reason:
            # torch's advice is to load it in a way that runs what it holds.
            reason = "it holds something else than weights, which loading might run"
        raise ValueError(f"{path}: not a checkpoint that can be read ({reason}).") from None
