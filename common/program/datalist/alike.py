"""Guess by the paths of scans which are of one person, and write the expression for ``--subject`` that says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...data.lists.subjects import SUBJECT
from ...io.images import open_image
from ...io.naming import make_case_stem

_DAY, _YEAR = r"(?:0[1-9]|[12]\d|3[01])", r"(?:19|20)\d\d"
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
# A date, with a time of day or without.
_DATE = re.compile(
    rf"""(?<!\d)(?: {_YEAR}([-_.]?)(?:0[1-9]|1[0-2])\1{_DAY} | {_DAY}([-_.]?){_DAY}\2{_YEAR}
        | \d\d?[-_.]?(?:{_MONTHS})[a-z]*[-_.]?\d\d(?:\d\d)? )
    (?: [T_ -]?(?:[01]\d|2[0-3])([-_.:]?)[0-5]\d\3[0-5]\d\.?\d* )?(?!\d)""",
    re.VERBOSE | re.IGNORECASE,
)
# A year, or year, month and day in six digits, which may also be the number of a person.
_YEARS, _SHORT = re.compile(_YEAR), re.compile(rf"\d\d(?:0[1-9]|1[0-2]){_DAY}")
# Words that say which scan of a person it is, not which person. S..._I... are the series and image of LONI's archive.
_WHICH = re.compile(
    r"""(?<![a-z0-9])(?:
        (?: t[12](?!\d)(star|wi?|[ncf])? | flair | pdw? | dir | swi | dwi | dti | adc | mprage | mp2rage | mpr | tse |
            fse | gre | flash | spgr | bravo | space | tof | stir | bold | asl | ct | mra? | mri | ax(ial)? |
            sag(ittal)? | cor(onal)? | tra | [23]d | post | pre | gd | ce | fs | anat | func | hr | lr | low | high |
            iso | native | retest )+ | \d(\.\d)?t | \d+(\.\d+)?mm | s\d+_i\d+ | i\d{5,} |
        (ses|session|visit|run|echo|rep|repeat|acq|tp|timepoint|baseline|bl|follow-?up|fu|day|week|month|year)[_ -]?\d*
    )(?![a-z0-9])""",
    re.VERBOSE | re.IGNORECASE,
)
# Behind a person's number.
_VISIT = re.compile(r"(?<![a-z0-9])(?:(?:mr|scan|exam)[_ -]?|[mvdwy])\d+(?![a-z0-9])", re.IGNORECASE)
_PLACE = re.compile(r"(site|cent(er|re)|hospital|scanner|cohort|study)[_ -]?\d+", re.IGNORECASE)
_WORD = "[^/_. -]+"
_SEPARATOR = "[_. -]"
_MOST = 6  # scans of a person on one grid; a beginning that more names share is that of a study or a site
_RUN = 2  # digits in the number of a person's scan, where the person has no longer number


def guess_persons(root: Path, paths: Collection[str]) -> dict[str, str]:
    """Guess the person of each scan, so that scans that may be of one person have the same.

    BIDS's ``sub-<label>`` is the person. In other names, words and dates that tell scans apart are left out. Numbers
    at the end tell scans apart, not people, if they are no longer than the number before, and come again with others.
    So do years at an end, and dates of six digits behind a number.
    At last, names are of one person if they are the same up to a separator, and shape and affine agree with each other
    but with no other file: if a whole cohort is on the grid of a template, the grid shows nothing.

    Args:
        root: folder of the paths.
        paths: of the scans.
    """
    names = {path: SUBJECT.search(path) for path in paths}
    known = {path: name[0].casefold() for path, name in names.items() if name}
    labels = _strip_run_numbers(_clean_names([path for path in paths if path not in known]))
    names_by_start: dict[str, set[str]] = {}
    for label in {*labels.values()}:
        names_by_start.setdefault(label.rpartition("_")[0] or label, set()).add(label)
    one = {}
    if any(1 < len(group) <= _MOST for group in names_by_start.values()):
        grids = {label: _read_grid(root / path) for path, label in labels.items()}
        count = Counter(grids.values())
        for start, group in names_by_start.items():
            paths_by_grid: dict[tuple | None, list[str]] = {}
            for label in group:
                if _count_digits(label.removeprefix(start)) <= max(_RUN, _count_digits(start)):
                    paths_by_grid.setdefault(grids[label], []).append(label)
            for grid, same in paths_by_grid.items():
                if grid is not None and 1 < len(same) <= _MOST and len(same) == count[grid] < len(grids):
                    one.update(dict.fromkeys(same, start))
    return known | {path: one.get(label, label) for path, label in labels.items()}


def suggest_subject_pattern(person: Mapping[str, str]) -> str | None:
    """A regular expression for ``--subject`` that makes each of these persons one subject; None if none was found.

    Args:
        person: of each path, from :func:`guess_persons`.
    """
    words = [f"({_WORD}{f'(?:{_SEPARATOR}{_WORD}){{{n}}}' if n else ''})[^/]*" for n in range(5)]
    skipped = ["", *(f"(?:{_WORD}{_SEPARATOR}){{{n}}}" for n in range(1, 6))]
    places = [("", "$"), *((f"^{f'(?:[^/]+/){{{n}}}' if n else ''}", "/") for n in range(4))]
    # Words of the file's name, then of a folder.
    simple = (f"{start}{skip}{word}{end}" for start, end in places for skip in skipped for word in words)
    names_by_person: dict[str, list[str]] = {}
    for path, name in person.items():
        if not SUBJECT.search(path):
            names_by_person.setdefault(name, []).append(path.rpartition("/")[2])
    starts = {
        re.escape(start)
        for files in names_by_person.values()
        if len(files) > 1 and (start := _find_common_start(files))
    }
    each = [f"(?i:{SUBJECT.pattern})", *(f"{start}(?={_SEPARATOR})" for start in sorted(starts)), "[^/.]+(?=[^/]*$)"]
    return next((expression for expression in (*simple, "|".join(each)) if _matches_persons(expression, person)), None)


def _matches_persons(expression: str, person: Mapping[str, str]) -> bool:
    """Whether subjects by an expression are these persons."""
    subjects: dict[str, str] = {}
    for path, name in person.items():
        match = re.search(expression, path)
        if not match or subjects.setdefault(match[match.re.groups and 1].casefold(), name) != name:
            return False
    return len(subjects) == len({*person.values()})


def _clean_names(paths: Sequence[str]) -> dict[str, str]:
    """The names of files without words and dates of scans; the paths, where numbered folders tell more scans apart."""
    stems = {path: f"{path.rpartition('/')[0]}/{make_case_stem(path)}" for path in paths}
    by_name = {path: _strip_dates(stem.rpartition("/")[2]) for path, stem in stems.items()}
    by_folder = {_strip_dates(stem.rpartition("/")[0]) for stem in stems.values()}
    tells = len({*by_name.values()}) >= len({name for name in by_folder if _count_digits(name)})
    return {
        path: (tells and by_name[path]) or _strip_dates(stem) or _strip_dates(stem, dates=False) or stem
        for path, stem in stems.items()
    }


def _strip_dates(text: str, dates: bool = True) -> str:
    """What words and dates of scans leave of a name, up to its last number."""
    text = _WHICH.sub("", _DATE.sub("", text) if dates else text)
    while (match := _VISIT.search(text)) and _count_digits(text[: match.start()]) >= _count_digits(match[0]):
        text = text[: match.start()] + text[match.end() :]
    words = re.findall(_WORD, text.casefold())
    if len(words) > 1 and _YEARS.fullmatch(words[0]):
        words = [*words[1:], words[0]]
    numbered = [i for i, word in enumerate(words) if _count_digits(word)]
    return "_".join(words[: numbered[-1] + 1] if numbered else words)


def _strip_run_numbers(labels: Mapping[str, str]) -> dict[str, str]:
    """Leave out numbers at the end of labels that count the scans of a person."""
    every = {*labels.values()}
    for count in range(1, max((label.count("_") for label in every), default=0) + 1):
        parts = {}
        for label in every:
            words = label.split("_")
            start, run = "_".join(words[:count]), "_".join(words[count:])
            dated = _YEARS.fullmatch(run) or (_count_digits(start) and (_VISIT.fullmatch(run) or _SHORT.fullmatch(run)))
            if dated or _count_digits(start) >= _count_digits(run):
                parts[label] = start, run
        starts, runs = Counter(start for start, _ in parts.values()), {run for _, run in parts.values()}
        if (len(runs) <= len(starts) or all(map(_SHORT.fullmatch, runs))) and 1 < len(starts) < len(parts):
            return _strip_run_numbers({path: parts.get(label, (label,))[0] for path, label in labels.items()})
    return dict(labels)


def _count_digits(text: str) -> int:
    """The length of the longest number in a text, without numbers of sites."""
    return max(map(len, re.findall(r"\d+", _PLACE.sub("", text))), default=0)


def _find_common_start(names: Iterable[str]) -> str:
    """The common beginning of names, up to a separator."""
    first, last = min(names), max(names)
    start = first
    while start and not (
        last.startswith(start) and all(re.match(f"{_SEPARATOR}|$", name[len(start) :]) for name in names)
    ):
        start = start[:-1]
    return start


def _read_grid(path: Path) -> tuple | None:
    try:
        image = open_image(path)
        return (*image.shape[:3], *np.round(image.affine[:3], 3).ravel().tolist())
    except Exception:
        return None  # errors in a file are reported when it is loaded
