"""Find the scans that are stacks of one exam."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from ...io.naming import make_case_stem
from ..case import Case

# Words of a file's name, or of a series' description, that say in which plane a stack is. Numbers do not: they may be
# those of patients.
_WHICH = re.compile(
    r"(acq-)?(ax|axial|tra|trans|transversal|transverse|cor|coronal|sag|sagittal|obl|oblique)", re.IGNORECASE
)
_WORD = re.compile(r"[^\s_.]+")


def identify_exam(path: str) -> Hashable:
    """A key that the stacks of one exam share: the folder, and the name without its plane."""
    return str(Path(path).parent), _split_words(make_case_stem(path))


def group_cases(cases: Sequence[Case], key: Callable[[Case], Hashable]) -> list[list[Case]]:
    """Group cases by key, in the order of their first cases."""
    groups: dict[Hashable, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def combine_stacks(stacks: Sequence[Case]) -> Case:
    """Combine the stacks of an exam into one case, without those that have a problem.

    Args:
        stacks: cases with "image" and "name".

    Returns:
        The case of the first stack that can be read, with the other files as "stacks", and all cases as its parts. Its
        name has the words that all names share, or all names if they share none. Stacks that are left out are warnings.
        It has a problem if a stack is there twice, or there is nothing to combine.
    """
    for case in stacks:
        if case.problem is None:
            with case.catch_problem():
                case.read_grid()
    good = [case for case in stacks if case.problem is None]
    reasons = [case.problem for case in stacks if case.problem is not None]
    files = [os.path.realpath(case["image"]) for case in good]
    if twice := [case.source for i, case in enumerate(good) if files[i] in files[:i]]:
        return replace(stacks[0], problem=f"{twice[0]}: named twice; name each stack once.")
    if len(good) < 2 and not (good and "guide" in good[0]):
        summary = f"found {len(good)} stack{'s' * (len(good) != 1)} that can be read"
        summary += ", expected at least two to combine, or one with --guide"
        return replace(stacks[0], problem=f"{stacks[0].source}: {'; '.join([summary, *reasons])}")
    names = [case.name for case in good]
    common = [word for word in names[0].split("_") if all(word in name.split("_") for name in names)]
    combined = {"name": "_".join(common or names), "stacks": [case["image"] for case in good[1:]]}
    return replace(
        good[0],
        entry={**good[0].entry, **combined},
        series={file: series for case in good for file, series in case.series.items()},
        sources={file: source for case in good for file, source in case.sources.items()},
        inputs={},
        parts=good,
        warnings=[f"left out: {reason}" for reason in reasons],
    )


def _split_words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name) if not _WHICH.fullmatch(word))
