"""Files are written whole or not at all, and those that cannot be read or written are named."""

from __future__ import annotations

import codecs
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .images import ending, missing_content

_THICKEST = 1000.0  # mm


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


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON of numbers, texts, lists and mappings; a number that is not finite is null, as JSON has none.

    Args:
        value: to write.
        indent: as for ``json.dumps``.
    """

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=indent, allow_nan=False)


def as_config(value: Any, indent: str = "") -> str:
    """JSON as configs are written: what fits on a line stays on one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (list, dict)) or not value or (indent and len(indent) + len(line) < 110):
        return line
    inner = indent + "    "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {as_config(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + as_config(item, inner) for item in value) + f"\n{indent}]"


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


def sidecar(path: str | os.PathLike) -> Path:
    """The JSON next to a scan that describes it, as BIDS and dcm2niix name it; whether it is there or not."""
    path = Path(path)
    return path.with_name(path.name[: len(path.name) - len(ending(path) or "")] + ".json")


def read_sidecar(path: str | os.PathLike) -> tuple[dict[str, Any], str | None]:
    """What the sidecar JSON of a scan says. It is only a hint, so nothing that is wrong with it is an error.

    Args:
        path: of the scan.

    Returns:
        The keys and values, none where there is no such file or it cannot be read, ``SliceThickness`` as a number in mm
        and only where it is a thickness; and a warning that begins with the file's name where something is wrong.
    """
    file = sidecar(path)
    if not (file.exists() or file.is_symlink()):
        return {}, None
    said, problem = read_object(file)
    if problem is not None:
        problem = (missing_content(file) or problem).rstrip(".")
        return {}, f"{file}: {problem}; nothing in it is used. Mend or remove it."
    if said.get("SliceThickness") is None:
        return said, None
    value = said.pop("SliceThickness")
    if (mm := slice_thickness(value)) is None:
        found = f"{file}: SliceThickness is {repr(value)[:60]}, expected a number of mm above 0, at most {_THICKEST:g}"
        return said, f"{found}; it is not used. Mend or remove it."
    return {**said, "SliceThickness": mm}, None


def slice_thickness(value: Any) -> float | None:
    """A thickness of slices in mm, given as a number or as text; None where it is none that slices have."""
    try:
        mm = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return mm if 0 < mm <= _THICKEST else None


def read_object(file: Path) -> tuple[dict[str, Any], str | None]:
    """The object in a JSON file in UTF-8, UTF-16 or Latin-1, with or without a byte order mark.

    Returns:
        The object, empty where it cannot be read; and what is wrong with the file, or None.
    """
    try:
        content = json.loads(_text(file.read_bytes()), parse_constant=str)
    except OSError as error:
        return {}, f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON ({error})"
    if not isinstance(content, dict):
        return {}, f"found a {type(content).__name__}, expected a JSON object"
    return content, None


def _text(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if data[:2].count(0) == 1:  # UTF-16 without a mark: JSON begins with ASCII
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
