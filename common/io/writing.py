"""Write files whole or not at all, and say where that is not possible."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_PART = re.compile(r"\.part-(\d+)-(.*)-[^-]+")  # a process and its machine
_OLD = 24 * 3600.0  # seconds, after which nobody still writes a file


# What holds back the files that are written now, with ``get_folder(folder)`` and ``files``; None if they are moved.
held_back: ContextVar[Any] = ContextVar("held_back", default=None)


@contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary file, and move it to ``path`` if the block ends without an error.

    The name is that of ``path``, because writers choose their format by the ending. The folder is one of
    :func:`open_part_folder`. While files are held back, what holds them moves it later.

    Args:
        path: the file to write; missing folders are created.

    Yields:
        The temporary name.
    """
    path = Path(path)
    held = held_back.get()
    with open_part_folder(path.parent) if held is None else nullcontext(held.get_folder(path.parent)) as part:
        temporary = part / path.name
        yield temporary
        if held is None:
            os.replace(temporary, path)
        else:
            held.files[path] = temporary


@contextmanager
def open_part_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Make a hidden folder in ``folder`` for files that are not whole yet, and remove it at the end.

    No two processes share one. Those that killed processes have left are removed.

    Args:
        folder: created if it is missing.
    """
    folder, machine = Path(folder), platform.node()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".part-*"):
        with suppress(OSError):  # another process removes it too
            known = _PART.fullmatch(left.name)
            is_stopped = known is not None and known[2] == machine and not _is_running(int(known[1]))
            if known and (is_stopped or time.time() - left.stat().st_mtime > _OLD):
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".part-{os.getpid()}-{machine}-", dir=folder) as part:
        yield Path(part)


def _is_running(process: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be asked."""
    try:
        if os.name == "posix":
            os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def check_writable(*folders: str | os.PathLike) -> None:
    """Refuse folders that cannot be written to. Nothing is left behind.

    Args:
        folders: existing or new folders.
    """
    for folder in folders:
        place = find_existing(folder)
        if not place.is_dir():
            raise NotADirectoryError(f"cannot write to {folder}: {place} is a file; name another folder.")
        try:
            # Try it: permissions alone do not show it (root, read-only mounts).
            os.rmdir(tempfile.mkdtemp(dir=place))
        except OSError as error:
            raise PermissionError(f"cannot write to {folder}: {error}; name another folder.") from None


def find_existing(folder: str | os.PathLike) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return place
