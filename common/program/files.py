"""Files of a result that are written together, locks, and room on the disk."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..io.writing import find_existing, held_back, open_part_folder

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_PATIENCE = 10.0  # seconds that a lock may stay; files are moved in much less


class HeldFiles:
    """The files of one result, which are held back until all are written, and then moved together.

    Attributes:
        files: by path, where each is until then; None for one to be removed.
    """

    def __init__(self) -> None:
        self.files: dict[Path, Path | None] = {}
        self._folders: dict[Path, Path] = {}
        self._open = ExitStack()

    @contextmanager
    def hold_back(self) -> Iterator[None]:
        """Hold back what ``write_atomically`` writes in the block, and what :func:`remove_file` removes.

        An error in it discards all.
        """
        token = held_back.set(self)
        try:
            yield
        except BaseException:
            self.discard()
            raise
        finally:
            held_back.reset(token)

    def get_folder(self, folder: Path) -> Path:
        """Where the files of a folder are until they are moved."""
        if folder not in self._folders:
            self._folders[folder] = self._open.enter_context(open_part_folder(folder))
        return self._folders[folder]

    def move(self) -> None:
        """Move the files to where they belong.

        JSON files come first, and say whose the others are. So a killed process leaves no file without its origin.
        """
        for path, temporary in self.files.items():
            if path.suffix != ".json" or temporary is None:
                path.unlink(missing_ok=True)
        for path, temporary in sorted(self.files.items(), key=lambda item: item[0].suffix != ".json"):
            if temporary is not None:
                os.replace(temporary, path)
        self.discard()

    def discard(self) -> None:
        """Remove the files that were not moved."""
        self.files.clear()
        self._folders.clear()
        self._open.close()


def find_written(path: Path) -> Path:
    """Where a file is: a held one is in its temporary folder."""
    held = held_back.get()
    return (held and held.files.get(path)) or path


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; while files are held back, when these are moved."""
    if (held := held_back.get()) is not None:
        held.files[path] = None
    else:
        path.unlink(missing_ok=True)


@contextmanager
def lock_path(path: Path) -> Iterator[None]:
    """Let no other process move files to ``path`` during the block. It waits for one that does.

    The lock is a folder, because making one is exclusive on all file systems. One that stays for 10 seconds was left by
    a killed process, and is taken over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".lock-{path.name}")
    found, since = None, 0.0
    while True:
        with suppress(FileExistsError):
            lock.mkdir()
            break
        with suppress(FileNotFoundError):  # the other process is done
            now = lock.stat().st_ino, lock.stat().st_mtime_ns
            if now != found:
                found, since = now, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                lock.rmdir()
            else:
                time.sleep(0.02)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            lock.rmdir()


def check_room(folder: str | os.PathLike, file: float, files: float) -> None:
    """Refuse to write files that do not fit into a folder. Quotas of users are not seen.

    Args:
        folder: existing or new folder.
        file: size of a file in bytes.
        files: size of this and all earlier files together.
    """
    free = shutil.disk_usage(find_existing(folder)).free
    limit = math.inf
    if resource is not None and (most := resource.getrlimit(resource.RLIMIT_FSIZE)[0]) != resource.RLIM_INFINITY:
        limit = most
    if file > limit:
        raise ValueError(
            f"its result needs at least {format_mib(file)}, and this process may write files of at most "
            f"{format_mib(limit)}; raise the limit (ulimit -f)."
        )
    if files > free:
        raise ValueError(
            f"the results up to this one need at least {format_mib(files)}, and {folder} has room for "
            f"{format_mib(free)}; make room, or name another output folder."
        )


def format_mib(size: float) -> str:
    """A size in bytes, in words."""
    return f"{size / 2**20:.3g} MiB"
