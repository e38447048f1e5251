"""Find files, write them whole or not at all, and name those that cannot be read or written."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from .images import explain_missing_content, get_extension

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_THICKEST = 1000.0  # mm
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
        for path in self.files:
            if path.suffix != ".json":
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


def format_json(value: Any, indent: int | None = None) -> str:
    """JSON of numbers, texts, lists and mappings. NaN and infinity become null, because JSON has neither.

    Args:
        value: the value to convert.
        indent: as for ``json.dumps``.
    """

    def replace_non_finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: replace_non_finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [replace_non_finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(replace_non_finite(value), indent=indent, allow_nan=False)


def format_config(value: Any, indent: str = "") -> str:
    """JSON in the layout of the configs: values that fit on one line stay on it."""
    line = json.dumps(value)  # ASCII, because MONAI reads configs in the encoding of the system
    if not isinstance(value, (list, dict)) or not value or (indent and len(indent) + len(line) < 110):
        return line
    inner = indent + "    "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {format_config(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + format_config(item, inner) for item in value) + f"\n{indent}]"


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


def load_state(path: Path, device: torch.device | str) -> Any:
    """Check a file's checksums and read it by ``torch.load`` with ``weights_only=True``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read, is damaged, or holds objects that would run code; or when the device
            is a GPU and there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}.")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch finds no GPU; leave it out, or set it to cpu.")
    try:
        # torch ignores wrong checksums.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} in it is wrong, the file is damaged")
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "weights_only" in reason or "Weights only" in reason:
            # torch's own message recommends loading that runs the file's code.
            reason = "it holds other objects than weights, whose code loading might run"
        raise ValueError(f"{path}: not a checkpoint that can be read ({reason}).") from None


def get_sidecar_path(path: str | os.PathLike) -> Path:
    """Path of a scan's sidecar JSON, as BIDS and dcm2niix name it. The file may be missing."""
    path = Path(path)
    return path.with_name(path.name[: len(path.name) - len(get_extension(path) or "")] + ".json")


def read_sidecar(path: str | os.PathLike) -> tuple[dict[str, Any], str | None]:
    """Read the sidecar JSON of a scan. It is only a hint, so a fault in it is not an error.

    Args:
        path: the scan.

    Returns:
        The keys and values, empty if the file is missing or cannot be read. ``SliceThickness`` is a number in mm, and
        is left out if it is not a thickness. Second a warning that begins with the file's name, or None.
    """
    file = get_sidecar_path(path)
    if not (file.exists() or file.is_symlink()):
        return {}, None
    metadata, problem = read_json_object(file)
    if problem is not None:
        problem = (explain_missing_content(file) or problem).rstrip(".")
        return {}, f"{file}: {problem}; nothing in it is used. Correct or remove it."
    if metadata.get("SliceThickness") is None:
        return metadata, None
    value = metadata.pop("SliceThickness")
    if (mm := parse_slice_thickness(value)) is None:
        fault = f"{file}: SliceThickness is {repr(value)[:60]}, expected a number of mm above 0, at most {_THICKEST:g}"
        return metadata, f"{fault}; it is not used. Correct or remove it."
    return {**metadata, "SliceThickness": mm}, None


def parse_slice_thickness(value: Any) -> float | None:
    """A slice thickness in mm, from a number or text; None if it is not a possible thickness."""
    try:
        mm = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return mm if 0 < mm <= _THICKEST else None


def read_json_object(file: Path) -> tuple[dict[str, Any], str | None]:
    """Read the object in a JSON file in UTF-8, UTF-16 or Latin-1, with or without a byte order mark.

    Returns:
        The object, empty if it cannot be read; and what is wrong with the file, or None.
    """
    try:
        data = file.read_bytes()
        try:
            text = data.decode(json.detect_encoding(data))
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        content = json.loads(text, parse_constant=str)
    except OSError as error:
        return {}, f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON ({error})"
    if not isinstance(content, dict):
        return {}, f"found a {type(content).__name__}, expected a JSON object"
    return content, None


def find_files(root: Path, patterns: str | Sequence[str] | None, option: str) -> list[str]:
    """Paths of files that match glob patterns, hidden ones left out.

    Args:
        root: folder that patterns and paths are relative to.
        patterns: glob patterns, separated by commas; None finds nothing.
        option: command-line option of the patterns, for messages.

    Returns:
        Paths relative to ``root``, sorted.
    """
    matching: set[str] = set()
    for pattern in patterns.split(",") if isinstance(patterns, str) else patterns or ():
        if not pattern.strip() or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"--{option} '{pattern}'; expected a pattern inside of dataset_dir, relative to it.")
        parts = Path(pattern.strip()).parts
        matches = [
            path for path in list_files(root, None if "**" in parts else len(parts)) if _matches_pattern(path, parts)
        ]
        if not matches:
            without = " For scans without guides, use --guided false."
            raise FileNotFoundError(
                f"no files match --{option} '{pattern}' in {root}." + (without if option == "guide" else "")
            )
        matching.update(matches)
    return sorted(matching)


def list_files(root: Path, depth: int | None = None) -> list[str]:
    """Paths of the files of a folder and its subfolders, without hidden files and circular links.

    Links are followed. Links without a target are listed too, because they may be scans.

    Args:
        root: the folder.
        depth: largest number of parts of a path, 1 for the folder's own files; default any number.

    Returns:
        Paths relative to ``root``, sorted.
    """

    def report_unreadable(error: OSError) -> None:
        warnings.warn(f"{error.filename}: this folder cannot be read ({error.strerror}).", stacklevel=2)

    files = []
    above = {str(root): {_identify_folder(root)}}
    for place, folders, names in os.walk(root, followlinks=True, onerror=report_unreadable):
        parts = Path(place).relative_to(root).parts
        files += [Path(*parts, name).as_posix() for name in names if name[0] != "." and _is_file(place, name)]
        entered = []
        for name in folders if depth is None or len(parts) + 1 < depth else ():
            below = os.path.join(place, name)
            if name[0] != "." and (identity := _identify_folder(below)) not in above[place]:
                above[below] = above[place] | {identity}
                entered.append(name)
        folders[:] = entered
    return sorted(files)


def _is_file(place: str, name: str) -> bool:
    """Whether the path is a file, or a link without a target."""
    path = os.path.join(place, name)
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


def _identify_folder(folder: str | os.PathLike) -> tuple[int, int]:
    """Device and inode of a folder, which are the same for all paths to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _matches_pattern(path: str, pattern: Sequence[str]) -> bool:
    """Whether a path fits the parts of a glob pattern, where ``**`` matches any number of folders."""

    def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
        if not pattern:
            return not parts
        if pattern[0] == "**":
            return any(matches(parts[i:], pattern[1:]) for i in range(len(parts)))
        return bool(parts) and fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])

    return matches(Path(path).parts, pattern)
