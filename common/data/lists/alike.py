"""Find subjects of a datalist that may be one person, by names with the same beginning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...io.images import open_image
from .datalist import SUBJECT, subject_of

# Words at the end of a name that say which scan of a person it is, not which person.
_WHICH = re.compile(
    r"""([_. -](
        t[12](star)?w? | t2s | pdw? | flair | dir | swi | dwi | mprage | mp2rage | tse | fse | gre | flash | spgr |
        tof | stir | bold | asl | ct | mra? | mri | anat | hr | lr | low | high | iso | 2d | 3d | ax | axial | sag |
        sagittal | cor | coronal | tra | pre | post | gd | ce | native | baseline | followup | retest |
        (ses|session|visit|run|echo|rep|acq|tp|timepoint)-?\d*
    ))+$""",
    re.VERBOSE | re.IGNORECASE,
)
_WORD = "[^/_. -]+"
_SEPARATOR = "[_. -]"
_MOST = 6  # scans of a person; a beginning that more names share is that of a study or a site


def alike(root: Path, subjects: Mapping[str, str]) -> list[list[str]]:
    """Groups of subjects that may be one person.

    Either the names differ only in words at the end that name scans, such as ``_t1w`` and ``_flair``. Or they are the
    same up to a separator, and shape and affine agree with each other but with no other file: if a whole cohort is on
    the grid of a template, the grid shows nothing. Files with BIDS's ``sub-<label>`` are ignored.

    Args:
        root: folder of the paths.
        subjects: of each path; by default these are the files' names.

    Returns:
        The subjects of each group, sorted.
    """
    names = {subject for path, subject in subjects.items() if not SUBJECT.search(path)}
    of_scan: dict[str, set[str]] = {}
    of_start: dict[str, set[str]] = {}
    for name in names:
        of_scan.setdefault(_WHICH.sub("", name), set()).add(name)
        of_start.setdefault(re.split(f"{_SEPARATOR}(?!.*{_SEPARATOR})", name)[0], set()).add(name)
    found = [group for group in of_scan.values() if len(group) > 1]
    if any(1 < len(group) <= _MOST for group in of_start.values()):
        grids = {subject: _grid(root / path) for path, subject in subjects.items()}
        count = Counter(grids.values())
        for group in of_start.values():
            of_grid: dict[tuple | None, set[str]] = {}
            for name in group:
                of_grid.setdefault(grids[name], set()).add(name)
            found += [
                same
                for grid, same in of_grid.items()
                if grid is not None and 1 < len(same) <= _MOST and len(same) == count[grid] < len(grids)
            ]
    return sorted(map(sorted, _merged(found)))


def joining(subjects: Mapping[str, str], groups: Sequence[Sequence[str]]) -> str:
    """A regular expression for ``--subject`` that makes each of these groups one subject and keeps others separate.

    Args:
        subjects: of each path.
        groups: of subjects, from :func:`alike`.
    """
    one = {name: group[0] for group in groups for name in group}
    wanted = {path: one.get(subject, subject) for path, subject in subjects.items()}
    for words in range(3):  # the first words of a name, where these do
        expression = f"({_WORD}{f'(?:{_SEPARATOR}{_WORD}){{0,{words}}}' if words else ''})[^/]*$"
        made = {path: subject_of(path, expression) for path in wanted}
        if len({*made.values()}) == len({*wanted.values()}) == len({(made[path], wanted[path]) for path in wanted}):
            return expression
    starts = "|".join(f"{re.escape(_start(group))}(?={_SEPARATOR})" for group in groups)
    return f"{SUBJECT.pattern}|{starts}|[^/.]+(?=[^/]*$)"


def _start(names: Sequence[str]) -> str:
    """The common beginning of names, up to a separator."""
    first, last = min(names), max(names)
    start = first
    while not (last.startswith(start) and all(re.match(f"{_SEPARATOR}|$", name[len(start) :]) for name in names)):
        start = start[:-1]
    return start


def _grid(path: Path) -> tuple | None:
    try:
        image = open_image(path)
        return (*image.shape[:3], *np.round(image.affine[:3], 3).ravel().tolist())
    except Exception:
        return None  # errors in a file are reported when it is loaded


def _merged(groups: Sequence[set[str]]) -> list[set[str]]:
    """Merge sets that overlap."""
    merged: list[set[str]] = []
    for group in groups:
        apart = [other for other in merged if not other & group]
        merged = [*apart, group.union(*(other for other in merged if other & group))]
    return merged
