"""How cases, their results and what goes wrong with them are named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def root_cause(error: BaseException) -> str:
    """What first went wrong, in one line: MONAI wraps the errors of its transforms in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else ""
    # The messages of this collection stand by themselves; others need the name of what happened.
    if not isinstance(error, (ValueError, FileNotFoundError)):
        message = f"{type(error).__name__}: {message}"
    return message


def failure(case: str, reason: str) -> str:
    """A line for a list of failures: the case, unless the reason begins with it, and the reason."""
    return reason if reason.startswith(f"{case}:") else f"{case}: {reason}"


def case_name(item: Mapping[str, Any]) -> str:
    """The files of a datalist's entry, for messages."""
    return ", ".join(str(item[key]) for key in ("hr", "lr", "image") if key in item)


def case_stem(path: str | os.PathLike, subject: str | None = None) -> str:
    """What the results of a case are named by: its file's name, after its subject where the name does not say it."""
    name = Path(path).name
    for ending in (".gz", ".nii", ".img", ".hdr", ".mgz", ".mgh"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name if subject is None or subject in name else f"{subject}_{name}"


def result_path(output_dir: str | os.PathLike, name: str, postfix: str = "sr", bids: bool = False) -> Path:
    """Where the result of a scan is written."""
    return Path(output_dir) / f"{name}_{postfix}.nii.gz"
