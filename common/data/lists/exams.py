"""Find the scans that are stacks of one exam."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from ...io.naming import case_stem
from ..case import Case

# Words of a file's name, or of a series' description, that say in which plane a stack is. Numbers do not: they may be
# those of patients.
_WHICH = re.compile(
    r"(acq-)?(ax|axial|tra|trans|transversal|transverse|cor|coronal|sag|sagittal|obl|oblique)", re.IGNORECASE
)
_WORD = re.compile(r"[^\s_.]+")


def exam_of(path: str) -> Hashable:
    """A key that the stacks of one exam share: the folder, and the name without its plane."""
    return str(Path(path).parent), _words(case_stem(path))


def group_by(cases: Sequence[Case], key: Callable[[Case], Hashable]) -> list[list[Case]]:
    """Group cases by key, in the order of their first cases."""
    groups: dict[Hashable, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def combine_stacks(stacks: Sequence[Case]) -> Case:
    """The case of an exam: that of its first stack, with the other files as "stacks" and a common name.

    Args:
        stacks: cases with "image" and "name".

    Returns:
        The case. Its name has the words that all names share, or all names if they share none.
    """
    first, *others = stacks
    names = [case.name for case in stacks]
    common = [word for word in names[0].split("_") if all(word in name.split("_") for name in names)]
    own = {"name": "_".join(common or names), "stacks": [case["image"] for case in others]}
    series = {file: series for case in stacks for file, series in case.series.items()}
    return replace(first, entry={**first.entry, **own}, series=series)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name) if not _WHICH.fullmatch(word))
