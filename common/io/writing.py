"""Write files whole or not at all, and say where that is not possible."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_PART = re.compile(r"\.part-(\d+)-(.*)-[^-]+")  # a process and its machine
_OLD = 24 * 3600.0  # seconds, after which nobody still writes a file
_PATIENCE = 10.0  # seconds that a lock may stay; files are moved in much less


@contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary file, and move it to ``path`` if the block ends without an error.

    The name is that of ``path``, because writers choose their format by the ending. The folder is one of
    :func:`open_part_folder`. While files are held back, :class:`HeldFiles` moves it later.

    Args:
        path: the file to write; missing folders are created.

    Yields:
        The temporary name.
    """
    path = Path(path)
    held = _held.get()
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
    def hold(self) -> Iterator[None]:
        """Hold back what :func:`write_atomically` writes in the block, and what :func:`remove_file` removes.

        An error in it discards all.
        """
        token = _held.set(self)
        try:
            yield
        except BaseException:
            self.discard()
            raise
        finally:
            _held.reset(token)

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


_held: ContextVar[HeldFiles | None] = ContextVar("_held", default=None)


def find_written(path: Path) -> Path:
    """Where a file is: a held one is in its temporary folder."""
    held = _held.get()
    return (held and held.files.get(path)) or path


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; while files are held back, when these are moved."""
    if (held := _held.get()) is not None:
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


def check_writable(*folders: str | os.PathLike) -> None:
    """Refuse folders that cannot be written to. Nothing is left behind.

    Args:
        folders: existing or new folders.
    """
    for folder in folders:
        place = _find_existing(folder)
        if not place.is_dir():
            raise NotADirectoryError(f"cannot write to {folder}: {place} is a file; name another folder.")
        try:
            # Try it: permissions alone do not show it (root, read-only mounts).
            os.rmdir(tempfile.mkdtemp(dir=place))
        except OSError as error:
            raise PermissionError(f"cannot write to {folder}: {error}; name another folder.") from None


def check_room(folder: str | os.PathLike, file: float, files: float) -> None:
    """Refuse to write files that do not fit into a folder. Quotas of users are not seen.

    Args:
        folder: existing or new folder.
        file: size of a file in bytes.
        files: size of this and all earlier files together.
    """
    free = shutil.disk_usage(_find_existing(folder)).free
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


def _find_existing(folder: str | os.PathLike) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return place
