"""Find files, and read and format those that are JSON or states of torch."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from .formats import explain_missing_content, get_extension

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_THICKEST = 1000.0  # mm
_CONFIG_WIDTH = 150  # characters of a line of a config


def find_shipped(path: str | os.PathLike) -> Path:
    """A file or a bundle as it is, or, if it is not there, the same next to this package, such as ``bundles/udean``.

    So the repository's configs, whose ``bundle_root`` is relative, run in any folder. A folder without ``configs`` is
    no bundle: results of such a run may lie in it.
    """
    given, shipped = Path(path), Path(__file__).parents[2] / path
    is_there = (given / "configs").is_dir() if given.is_dir() else given.exists()
    return shipped if shipped.exists() and not is_there else given


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


def format_config(value: Any, indent: str = "", key: str = "") -> str:
    """JSON in the layout of the configs: values that fit on one line stay on it.

    Args:
        value: of a config.
        indent: of its line.
        key: before it, with the colon.
    """
    line = key + json.dumps(value)  # ASCII, because MONAI reads configs in the encoding of the system
    if not isinstance(value, (list, dict)) or not value or (indent and len(indent) + len(line) < _CONFIG_WIDTH):
        return line
    inner = indent + "    "
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    items = [inner + format_config(item, inner, "" if k is None else f"{json.dumps(k)}: ") for k, item in pairs]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{key}{start}\n" + ",\n".join(items) + f"\n{indent}{end}"


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
        ``SliceEncodingDirection`` one of i, j, k, i-, j-, k-; what is neither is left out. Second a warning that begins
        with the file's name, or None.
    """
    file = get_sidecar_path(path)
    if not (file.exists() or file.is_symlink()):
        return {}, None
    metadata, problem = read_json_object(file)
    if problem is not None:
        problem = (explain_missing_content(file) or problem).rstrip(".")
        return {}, f"{file}: {problem}; nothing in it is used. Correct or remove it."
    faults = []
    for key, (parse, expected) in _CHECKED.items():
        if (value := metadata.pop(key, None)) is None:
            continue
        if (parsed := parse(value)) is None:
            faults.append(f"{key} is {repr(value)[:60]}, expected {expected}")
        else:
            metadata[key] = parsed
    return metadata, f"{file}: {'; '.join(faults)}; it is not used. Correct or remove it." if faults else None


def parse_slice_thickness(value: Any) -> float | None:
    """A slice thickness in mm, from a number or text; None if it is not a possible thickness."""
    try:
        mm = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return mm if 0 < mm <= _THICKEST else None


def _parse_direction(value: Any) -> str | None:
    return value if value in [axis + sign for axis in "ijk" for sign in ("", "-")] else None


# Keys of a sidecar that are checked: what reads a value, None for a wrong one, and what is expected.
_CHECKED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "SliceThickness": (parse_slice_thickness, f"a number of mm above 0, at most {_THICKEST:g}"),
    "SliceEncodingDirection": (_parse_direction, "i, j or k, or with a minus i-, j- or k-"),
}


def decode_text(data: bytes) -> str:
    """Decode a text in UTF-8 or UTF-16, with or without a byte order mark, or else in Windows-1252 or Latin-1."""
    for encoding in (json.detect_encoding(data), "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return data.decode("latin-1")


def read_json_object(file: Path) -> tuple[dict[str, Any], str | None]:
    """Read the object in a JSON file in UTF-8, UTF-16 or Latin-1, with or without a byte order mark.

    Returns:
        The object, empty if it cannot be read; and what is wrong with the file, or None.
    """
    try:
        content = json.loads(decode_text(file.read_bytes()), parse_constant=str)
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
            advice = " For scans without guides, leave --guide out of mri-sr, or use --guided False."
            without = advice * (option == "guide")
            raise FileNotFoundError(f"no files match --{option} '{pattern}' in {root}.{without}")
        matching.update(matches)
    return sorted(matching)


def list_files(
    root: Path, depth: int | None = None, leave_out: Callable[[str], bool] = lambda path: False
) -> list[str]:
    """Paths of the files of a folder and its subfolders, without hidden files and circular links.

    Links are followed. Links without a target are listed too, because they may be scans.

    Args:
        root: the folder.
        depth: largest number of parts of a path, 1 for the folder's own files; default any number.
        leave_out: whether to leave out a path relative to ``root``, that of a folder with a slash at its end.

    Returns:
        Paths relative to ``root``, sorted.
    """

    def report_unreadable(error: OSError) -> None:
        warnings.warn(f"{error.filename}: this folder cannot be read ({error.strerror}).", stacklevel=2)

    files = []
    above = {str(root): {_identify_folder(root)}}
    for place, folders, names in os.walk(root, followlinks=True, onerror=report_unreadable):
        parts = Path(place).relative_to(root).parts
        own = [Path(*parts, name).as_posix() for name in names if name[0] != "." and _is_file(place, name)]
        files += [path for path in own if not leave_out(path)]
        entered = []
        for name in folders if depth is None or len(parts) + 1 < depth else ():
            below = os.path.join(place, name)
            if name[0] == "." or leave_out(Path(*parts, name).as_posix() + "/"):
                continue
            if (identity := _identify_folder(below)) not in above[place]:
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
