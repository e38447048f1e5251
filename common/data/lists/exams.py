"""Find the scans that are stacks of one exam."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...io.naming import case_stem

_Item = TypeVar("_Item")
# Words of a file's name, or of a series' description, that say in which plane a stack is. Numbers do not: they may be
# those of patients.
_WHICH = re.compile(
    r"(acq-)?(ax|axial|tra|trans|transversal|transverse|cor|coronal|sag|sagittal|obl|oblique)", re.IGNORECASE
)
_WORD = re.compile(r"[^\s_.]+")


def exam_of(path: str) -> Hashable:
    """A key that the stacks of one exam share: the folder, and the name without its plane."""
    return str(Path(path).parent), _words(case_stem(path))


def grouped(items: Sequence[_Item], key: Callable[[_Item], Hashable]) -> list[list[_Item]]:
    """Group items by key, in the order of their first items."""
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def joined(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of an exam: that of its first stack, with the other files as "stacks" and a common name.

    Args:
        entries: of the stacks, each with "image" and "name".

    Returns:
        The entry. Its name has the words that all names share, or all names if they share none.
    """
    first, *others = entries
    names = [entry["name"] for entry in entries]
    common = [word for word in names[0].split("_") if all(word in name.split("_") for name in names)]
    return {**first, "name": "_".join(common or names), "stacks": [entry["image"] for entry in others]}


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name) if not _WHICH.fullmatch(word))
