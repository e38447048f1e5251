"""Values of DICOM attributes, also if a file has wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset


def get_values(header: Dataset, keyword: str) -> list[Any]:
    """An attribute's values; empty if it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)


def format_values(header: Dataset, keyword: str) -> str:
    """An attribute's values for a message."""
    return "\\".join(str(value) for value in get_values(header, keyword)) or "missing or unreadable"


def name_image(header: Dataset) -> str:
    """The name of an image's file, and the number of the frame in it."""
    file = Path(header.filename).name
    return f"{file}, frame {header.frame + 1}" if hasattr(header, "frame") else file


def get_words(header: Dataset, keyword: str) -> list[str]:
    """An attribute's values in capitals, without blanks at the ends."""
    return [str(value).strip().upper() for value in get_values(header, keyword)]


def get_number(header: Dataset, keyword: str) -> float | None:
    """An attribute's only value as a finite number, or None."""
    try:
        (number,) = get_numbers(header, keyword, 1)
    except ValueError:
        return None
    return number


def get_numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    """An attribute's numbers.

    Raises:
        ValueError: when there are not ``count`` numbers, or one is not finite.
    """
    try:
        numbers = [float(value) for value in get_values(header, keyword)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(
            f"{header.filename}: {keyword} is {format_values(header, keyword)}, expected {count} finite "
            f"number{'s' if count > 1 else ''}; a volume needs it for its position or scale, export the series again."
        )
    return numbers


def get_whole_number(header: Dataset, keyword: str, default: int | None = None) -> int:
    """An attribute's whole number above 0."""
    values = get_values(header, keyword) or ([] if default is None else [default])
    try:
        value = int(values[0]) if len(values) == 1 else 0
    except (TypeError, ValueError):
        value = 0
    if value < 1:
        raise ValueError(
            f"{header.filename}: {keyword} is {format_values(header, keyword)}, expected a whole number above 0."
        )
    return value


def format_some(names: list[str]) -> str:
    """The first of several names, and how many more there are."""
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
