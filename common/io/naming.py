"""Names of cases and their results, and messages about their errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import get_first_line
from .formats import get_extension

SIMULATED = "simulated.json"  # in a folder of simulated scans
_LONGEST = 249  # bytes of a file's name: file systems take 255, and the lock of a file is .lock-<name>


def format_case(item: Mapping[str, Any]) -> str:
    """The files of an entry, for messages."""
    return ", ".join(str(item[key]) for key in ("hr", "lr", "image") if key in item)


def format_failure(item: Mapping[str, Any], error: BaseException) -> str:
    """The files of an entry, and the first error that befell it, for a list of failures."""
    source, reason = item.get("image") or format_case(item), get_first_line(error)
    return reason if reason.startswith(f"{source}:") else f"{source}: {reason}"


def make_case_stem(path: str | os.PathLike, subject: str | None = None) -> str:
    """The name for results of a case: its file's name, after the subject if the name does not contain it."""
    name = Path(path).name
    name = name[: len(name) - len(get_extension(path) or "")]
    # The subject may be several folders of a path.
    subject = None if subject is None else subject.strip("/").replace("/", "_")
    # Only as a whole word: "b" is not in "kirby", and two subjects must not get the same name.
    is_named = subject is None or re.search(rf"(?<![^\W_]){re.escape(subject)}(?![^\W_])", name)
    return name if is_named else f"{subject}_{name}"


def get_output_folder(output: str | os.PathLike) -> Path:
    """The folder of results: the output itself, or that of the NIfTI file that it names for the only result."""
    path = Path(output)
    return path.parent if get_extension(path) in (".nii", ".nii.gz") and not path.is_dir() else path


def make_result_path(output_dir: str | os.PathLike, name: str, postfix: str = "sr") -> Path:
    """The path of a scan's result.

    Args:
        output_dir: folder of the results, or the file of the only one.
        name: of the scan.
        postfix: kind of result, letters and digits.

    Returns:
        ``<output_dir>/<name>_<postfix>.nii.gz``. For a file the postfix "sr" gives the file.

    Raises:
        ValueError: when the file's name would be too long.
    """
    path = Path(output_dir)
    if get_output_folder(path) == path:
        return check_length(path / f"{name}_{postfix}.nii.gz", name)
    return check_length(path, name) if postfix == "sr" else rename_result(path, postfix)


def check_length(path: Path, name: str) -> Path:
    """The path, unless its name is too long."""
    if (size := len(os.fsencode(path.name))) > _LONGEST:
        raise ValueError(
            f"{name}: the name of its result would have {size} bytes, expected at most {_LONGEST}; rename the scan."
        )
    return path


def rename_result(path: Path, postfix: str) -> Path:
    """The path of another volume about a result of :func:`make_result_path` with the postfix "sr".

    Raises:
        ValueError: when the file's name would be too long.
    """
    return check_length(path.with_name(f"{get_result_stem(path)}_{postfix}.nii.gz"), path.name)


def get_result_stem(result: Path) -> str:
    """The name of a result without extension and without the postfix "sr"."""
    return result.name[: len(result.name) - len(get_extension(result) or "")].removesuffix("_sr")
