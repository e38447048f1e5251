"""How cases, their results and what goes wrong with them are named."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import first_cause
from ..values import is_true
from .images import ending

# What names of derived anatomical images may hold, in order, by the BIDS specification 1.11.
_ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk", "space", "res", "desc")
_SUFFIXES = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "UNIT1")


def root_cause(error: BaseException) -> str:
    """What first went wrong, in one line: MONAI wraps the errors of its transforms in others."""
    error = first_cause(error)
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else ""
    # The messages of this collection stand by themselves; others need the name of what happened.
    if not isinstance(error, (ValueError, FileNotFoundError)):
        message = f"{type(error).__name__}: {message}"
    return message


def failure(case: str, reason: str) -> str:
    """A line for a list of failures: the case, unless the reason begins with it, and the reason."""
    return reason if reason.startswith(f"{case}:") else f"{case}: {reason}"


def without_name(message: str, item: Mapping[str, Any]) -> str:
    """A warning or a reason without what it begins with of the entry: a file, or the entry's name."""
    for name in (*item.values(), result_name(item)):
        message = message.removeprefix(f"{name}: ")
    return message


def by_name(message: str, item: Mapping[str, Any]) -> str:
    """A warning or a reason, in which the file that a DICOM series is made into for the run has the entry's name.

    Those of an exam have each the stack's file, or its series.
    """
    if "sources" in item:
        for file, source in zip(files_of(item), item["sources"], strict=True):
            message = message.replace(file, source)
        return message
    return message.replace(str(item["image"]), result_name(item)) if "source" in item else message


def few_words(message: str, item: Mapping[str, Any]) -> str:
    """What a warning or a reason about an entry says first, for one line."""
    message = without_name(message, item)
    return textwrap.shorten(re.split(r";\s|\.\s|\n", message)[0].rstrip("."), 140, placeholder=" ...")


def files_of(item: Mapping[str, Any]) -> list[str]:
    """The files of an entry of inference: the scan, its guide, and the further stacks of its exam."""
    return [str(path) for path in (*(item[key] for key in ("image", "guide") if key in item), *item.get("stacks", ()))]


def case_name(item: Mapping[str, Any]) -> str:
    """The files of an entry, for messages."""
    return ", ".join(str(item[key]) for key in ("hr", "lr", "image") if key in item)


def case_stem(path: str | os.PathLike, subject: str | None = None) -> str:
    """What the results of a case are named by: its file's name, after its subject where the name does not say it."""
    name = Path(path).name
    name = name[: len(name) - len(ending(path) or "")]
    # A part of a path may be several folders.
    subject = None if subject is None else subject.strip("/").replace("/", "_")
    # As a word: "b" is not in "kirby", and what another subject's file is called must not be met by chance.
    said = subject is None or re.search(rf"(?<![^\W_]){re.escape(subject)}(?![^\W_])", name)
    return name if said else f"{subject}_{name}"


def result_name(item: Mapping[str, Any]) -> str:
    """What the results of an entry are named by: its name, else its file's and its subject's."""
    path = item.get("image") or item.get("hr") or item["lr"]
    return item.get("name") or case_stem(path, item.get("subject"))


def result_path(output_dir: str | os.PathLike, name: str, postfix: str = "sr", bids: bool | str = False) -> Path:
    """Where the result of a scan is written.

    Args:
        output_dir: folder of the results.
        name: of the scan, :func:`result_name`.
        postfix: what the result is, letters and digits.
        bids: whether the result is named as a BIDS derivative: ``sub-01/ses-2/anat/sub-01_ses-2_res-high_desc-sr_T1w``.
            An image that has a ``desc`` has ``postfix`` added to it, and its ``res`` is replaced.

    Returns:
        ``<output_dir>/<name>_<postfix>.nii.gz``, or the derivative's path.

    Raises:
        ValueError: when a BIDS derivative is asked for and the scan is not named as BIDS names anatomical images.
    """
    if not is_true(bids, "bids"):
        return Path(output_dir) / f"{name}_{postfix}.nii.gz"
    *parts, suffix = name.split("_")
    entities = dict(part.split("-", 1) for part in parts if re.fullmatch("[a-z]+-[a-zA-Z0-9]+", part))
    if len(entities) < len(parts) or "sub" not in entities or not entities.keys() <= set(_ENTITIES):
        raise ValueError(
            f"{name}: not named as BIDS names anatomical images; expected is sub-<label>_<key>-<label>_..._<suffix> "
            f"with keys of {', '.join(_ENTITIES)}, each once, and labels of letters and digits. Rename the scan, or "
            "leave out --bids true."
        )
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{name}: ends in '{suffix}', which is no suffix of BIDS; expected is one of {', '.join(_SUFFIXES)}. "
            "Rename the scan, or leave out --bids true."
        )
    entities |= {"res": "high", "desc": entities.get("desc", "") + postfix}
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    labels = [f"{key}-{entities[key]}" for key in _ENTITIES if key in entities]
    return Path(output_dir, *folders, "anat", "_".join([*labels, suffix]) + ".nii.gz")
