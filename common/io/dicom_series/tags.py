"""Values of DICOM attributes, also if a file has wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset


def values(header: Dataset, keyword: str) -> list[Any]:
    """An attribute's values; empty if it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)


def text(header: Dataset, keyword: str) -> str:
    """An attribute's values for a message."""
    return "\\".join(str(value) for value in values(header, keyword)) or "missing or unreadable"


def name(header: Dataset) -> str:
    """The name of an image's file, and the number of the frame in it."""
    file = Path(header.filename).name
    return f"{file}, frame {header.frame + 1}" if hasattr(header, "frame") else file


def words(header: Dataset, keyword: str) -> list[str]:
    """An attribute's values in capitals, without blanks at the ends."""
    return [str(value).strip().upper() for value in values(header, keyword)]


def number(header: Dataset, keyword: str) -> float | None:
    """An attribute's only value as a finite number, or None."""
    try:
        (found,) = numbers(header, keyword, 1)
    except ValueError:
        return None
    return found


def numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    """An attribute's numbers.

    Raises:
        ValueError: when there are not ``count`` numbers, or one is not finite.
    """
    try:
        found = [float(value) for value in values(header, keyword)]
    except (TypeError, ValueError):
        found = []
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(
            f"{header.filename}: {keyword} is {text(header, keyword)}, expected {count} finite "
            f"number{'s' if count > 1 else ''}; a volume needs it for its position or scale, export the series again."
        )
    return found


def whole(header: Dataset, keyword: str, default: int | None = None) -> int:
    """An attribute's whole number above 0.

    Raises:
        ValueError: when the value is not such a number.
    """
    found = values(header, keyword) or ([] if default is None else [default])
    try:
        value = int(found[0]) if len(found) == 1 else 0
    except (TypeError, ValueError):
        value = 0
    if value < 1:
        raise ValueError(f"{header.filename}: {keyword} is {text(header, keyword)}, expected a whole number above 0.")
    return value


def some(names: list[str]) -> str:
    """The first of several names, and how many more there are."""
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
