"""Files are written whole or not at all, and those that cannot be read or written are named."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["append_about", "check_writable", "load_state", "read_about", "replacing", "sidecar"]

_ABOUT = "extra/about.json"  # where torch.jit puts, and looks for, further files
_KEYS = {"bundle", "version", "network", "settings", "defaults", "sha256"}


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


def append_about(path: str | os.PathLike, about: Mapping[str, Any]) -> None:
    """Say in a file of weights what they are: as one more record of the archive, which torch passes over.

    Args:
        path: of a file that ``torch.save`` or ``torch.jit.save`` has just written.
        about: as :func:`read_about` gives it.
    """
    with zipfile.ZipFile(path, "a") as archive:
        # Of a fixed date: the same weights give the same file.
        archive.writestr(zipfile.ZipInfo(_record(archive)), json.dumps(about, indent=1))


def read_about(path: str | os.PathLike) -> dict[str, Any] | None:
    """What a file of weights is, as it says itself.

    Args:
        path: of a .pt, .ts or .onnx file. Of a .pt or .ts file it is the archive's record ``extra/about.json``, which
            ``unzip -p model.pt "*/extra/about.json"`` prints; of an .onnx file the entry ``about`` of its metadata.

    Returns:
        ``bundle``, ``version``, ``network`` (the class), ``settings`` (what a config must agree with), ``defaults``
        (what inference does unless it is told otherwise) and ``sha256`` (of the names and values of the tensors);
        where a training wrote it also ``training`` (its iteration, and the metrics of their validation). None for a
        file that is not there, cannot be read, or says nothing.

    Raises:
        ImportError: for an .onnx file when onnxruntime is not installed.
        ValueError: when what it says cannot be read.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        text = _onnx_metadata(path).get("about") if path.is_file() else None
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(_record(archive)).decode()
        except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile):
            # What is damaged is refused where it is loaded.
            return None
    try:
        about = None if text is None else json.loads(text)
        if about is not None and not _KEYS <= about.keys():
            raise ValueError("keys are missing")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: what it says of itself cannot be read ({error}); get a whole file.") from None
    return about


def _record(archive: zipfile.ZipFile) -> str:
    """The name of the record in an archive of torch's, whose names all begin with one folder."""
    return f"{archive.namelist()[0].split('/')[0]}/{_ABOUT}"


def _onnx_metadata(path: Path) -> dict[str, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map


def sidecar(path: str | os.PathLike) -> Path:
    """The JSON beside a NIfTI file that describes it, as BIDS and dcm2niix name it; whether it is there or not."""
    return Path(os.fspath(path).removesuffix(".gz").removesuffix(".nii") + ".json")
