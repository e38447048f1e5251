"""Split a series into its stacks: echoes, magnitude and phase, time points."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from pydicom import Dataset

from .kinds import classify_image
from .tags import format_values, get_number, get_numbers, get_values

_FOLDER, _INSTANCE = "folder", "SOPInstanceUIDOfConcatenationSource"
# Tags that distinguish images at one place, with a name for a person. The first that does so is used.
_REPEATED = {
    "InversionTime": "TI {} ms", "FlipAngle": "flip angle {}", "TemporalPositionIdentifier": "time point {}",
    "TriggerTime": "trigger time {} ms", "DiffusionBValue": "b {}", "DiffusionGradientOrientation": "direction {}",
    "AcquisitionNumber": "acquisition {}", "ImageType": "type {}", "SequenceName": "sequence {}",
    "AcquisitionTime": "acquired at {}", "DimensionIndexValues": "dimension {}",
    _INSTANCE: "instance {}", _FOLDER: "folder {}",
}  # fmt: skip
_NUMBERED = ("DiffusionGradientOrientation", "DimensionIndexValues", _INSTANCE)
_UNCLEAR = ("DimensionIndexValues", _INSTANCE, _FOLDER)
_TIMES = ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "AcquisitionTime")
# Images that differ in one of these are no repetitions of one image.
_CONTRASTS = (
    "InversionTime", "FlipAngle", "DiffusionBValue", "DiffusionGradientOrientation", "ImageType", "SequenceName",
)  # fmt: skip
_ECHO = ("EchoTime", "EchoNumbers")
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
_ROUNDING = 0.01  # of echo times: ms, and as a share of them


@dataclass
class SeriesPart:
    """Images of a series that can be one volume.

    Attributes:
        name: name for a person, such as "echo 2, TE 90 ms"; empty if the series has no other part.
        headers: headers of the images.
        scan: the name without the time point.
        time: orders the time points of a scan; None if it is none.
    """

    name: str
    headers: list[Dataset]
    scan: str = ""
    time: float | None = None


def split_parts(headers: Sequence[Dataset]) -> list[SeriesPart]:
    """Split a series by the tags that distinguish its images.

    Kinds of images (magnitude, phase, ...) and echoes are always split. Other tags, such as the flip angle, are used
    only if several images lie at one place. Repetitions that only their numbers distinguish are time points.

    Args:
        headers: headers of the series in any order, each with its file as ``filename``.

    Returns:
        The parts; one if there is nothing to split, or if no tag distinguishes images at one place.
    """
    groups = [("", list(headers))]
    for split in (_split_by_kind, _split_by_stack, _split_by_echo):
        groups = [
            (_join_words(name, further), images) for name, group in groups for further, images in split(group).items()
        ]
    parts = [
        replace(part, name=_join_words(name, part.name), scan=_join_words(name, part.scan))
        for name, group in groups
        for part in _split_by_place(group)
    ]
    # The names become file names, which lose special characters.
    plain = Counter(re.sub("[^A-Za-z0-9]+", "_", part.name) for part in parts)
    unique = max(plain.values()) == 1
    return parts if unique else [replace(part, name=f"{part.name} ({i})") for i, part in enumerate(parts, 1)]


def describe_differences(first: Dataset, second: Dataset) -> str:
    """The tags that distinguish two images at one place, in words."""
    tags = [*_ECHO, *(tag for tag in _REPEATED if tag != _FOLDER)]
    return ", ".join(tag for tag in tags if first.get(tag) != second.get(tag)) or "nothing but the pixels"


def get_place_and_tags(header: Dataset) -> tuple[str, ...]:
    """Position of an image, or its file if that is unknown, and the tags that distinguish images at one place."""
    where = [format_values(header, tag) if get_values(header, tag) else header.filename for tag in _PLACE]
    return (*where, *(_format_value(header, tag) for tag in (*_ECHO, *_REPEATED) if tag not in (_FOLDER, _INSTANCE)))


def _split_by_kind(headers: list[Dataset]) -> dict[str, list[Dataset]]:
    groups: dict[str, list[Dataset]] = {}
    for header in headers:
        groups.setdefault(classify_image(header), []).append(header)
    return groups if len(groups) > 1 else {"": headers}


def _split_by_stack(headers: list[Dataset]) -> dict[str, list[Dataset]]:
    """Split frames of enhanced images by their stack; no split if each frame has its own."""
    stacks = list(dict.fromkeys(format_values(header, "StackID") for header in headers))
    if len(stacks) == 1 or 2 * len(stacks) > len(headers):
        return {"": headers}
    return {f"stack {stack}": [h for h in headers if format_values(h, "StackID") == stack] for stack in stacks}


def _split_by_echo(headers: list[Dataset]) -> dict[str, list[Dataset]]:
    """Split images by echo time and number, sorted by time; no split if each image has its own."""
    keys = list(zip(*(_round_together([get_number(header, tag) for header in headers]) for tag in _ECHO), strict=True))
    ordered = sorted(set(keys))
    if len(ordered) == 1 or 2 * len(ordered) > len(headers):
        return {"": headers}
    numbered = len({count for _, count in ordered}) == len(ordered) and all(count > 0 for _, count in ordered)
    return {
        f"echo {key[1] if numbered else i:g}, TE {'unknown' if key[0] < 0 else f'{key[0]:g} ms'}": [
            header for header, header_key in zip(headers, keys, strict=True) if header_key == key
        ]
        for i, key in enumerate(ordered, 1)
    }


def _round_together(column: Sequence[float | None]) -> list[float]:
    """Make values equal that differ by rounding. A missing value becomes that of all others, or -1."""
    firsts: list[float] = []
    for value in sorted(known for known in column if known is not None):
        if not firsts or value - firsts[-1] > _ROUNDING * max(1, abs(value)):
            firsts.append(value)
    missing = firsts[0] if len(firsts) == 1 else -1
    return [missing if value is None else max(first for first in firsts if first <= value) for value in column]


def _join_words(*words: str) -> str:
    return ", ".join(filter(None, words))


def _split_by_place(headers: list[Dataset]) -> list[SeriesPart]:
    """Split images at one place by the fewest tags that distinguish them, or else as they are numbered.

    No split if nothing distinguishes them, or none is needed.
    """
    places = _number_places(headers)
    repeats = max(Counter(places).values())
    if repeats == 1 or 2 * repeats > len(headers):
        return [SeriesPart("", headers)]
    columns = {tag: [_format_value(header, tag) for header in headers] for tag in _REPEATED}
    varying = [tag for tag, column in columns.items() if len(set(column)) > 1]
    # Tags that say what they mean go first.
    clear, numbers_only = ([tag for tag in varying if (tag in _UNCLEAR) == unclear] for unclear in (False, True))
    for known, count in ((known, count) for known in (clear, [*clear, *numbers_only]) for count in (1, 2, 3)):
        for tags in combinations(known, count):
            keys = list(zip(*(columns[tag] for tag in tags), strict=True))
            # Each value must occur once at each place. A tag that differs for each slice is of no use.
            if len(set(keys)) == repeats and max(Counter(zip(keys, places, strict=True)).values()) == 1:
                # Tags that split the images in the same way go before it, such as the b-value of a direction.
                telling = [t for t in known if t in tags or len(set(zip(keys, columns[t], strict=True))) == repeats]
                return _split_by_values(headers, {tag: columns[tag] for tag in telling[: telling.index(tags[-1]) + 1]})
    return _split_by_number(headers, places)


def _split_by_values(headers: list[Dataset], columns: Mapping[str, list[str]]) -> list[SeriesPart]:
    """Split images by the values of tags, in words."""
    words = [_name_values(tag, column) for tag, column in columns.items()]
    groups: dict[tuple[str, ...], list[Dataset]] = {}
    for header, *values_of_image in zip(headers, *columns.values(), strict=True):
        groups.setdefault(tuple(values_of_image), []).append(header)
    parts = []
    for i, (values, images) in enumerate(groups.items()):
        names = {tag: known[value] for tag, known, value in zip(columns, words, values, strict=True)}
        moments = [get_number(images[0], tag) for tag in columns if tag in _TIMES]
        time = next((float(i) if moment is None else moment for moment in moments), None)
        scan = ", ".join(name for tag, name in names.items() if tag not in _TIMES)
        parts.append(SeriesPart(", ".join(names.values()), images, scan, time))
    repeated = {
        scan: _are_repetitions([part.headers for part in parts if part.scan == scan])
        for scan in {part.scan for part in parts}
    }
    return [part if repeated[part.scan] else replace(part, time=None) for part in parts]


def _split_by_number(headers: list[Dataset], places: list[int]) -> list[SeriesPart]:
    """Split images at one place into time points by InstanceNumber, if there are equally many at each place."""
    numbers = [get_number(header, "InstanceNumber") for header in headers]
    repeats = set(Counter(places).values())
    if None in numbers or len(set(numbers)) < len(headers) or len(repeats) > 1:
        return [SeriesPart("", headers)]
    groups: list[list[Dataset]] = [[] for _ in range(repeats.pop())]
    counts: Counter[int] = Counter()
    for i in sorted(range(len(headers)), key=numbers.__getitem__):  # type: ignore[arg-type]
        groups[counts[places[i]]].append(headers[i])
        counts[places[i]] += 1
    if not _are_repetitions(groups):
        return [SeriesPart("", headers)]
    return [SeriesPart(f"time point {i}", images, "", i) for i, images in enumerate(groups, 1)]


def _are_repetitions(groups: Sequence[list[Dataset]]) -> bool:
    """Whether groups of images are of one contrast."""
    return all(len({frozenset(_format_value(h, tag) for h in images) for images in groups}) == 1 for tag in _CONTRASTS)


def _number_places(headers: Sequence[Dataset]) -> list[int]:
    """A number for each image, equal for images at one place; all different if places are unknown."""
    try:
        row, column = np.reshape(get_numbers(headers[0], "ImageOrientationPatient", 6), (2, 3))
        positions = np.array([get_numbers(header, "ImagePositionPatient", 3) for header in headers])
    except ValueError:
        return list(range(len(headers)))
    return number_alike(positions @ np.cross(row, column))


def number_alike(positions: Sequence[float] | np.ndarray) -> list[int]:
    """A number for each position in mm along a line, equal for those that differ by rounding."""
    along = np.asarray(positions)
    order = np.argsort(along, kind="stable")
    numbers = np.empty(len(along), dtype=int)
    numbers[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) > 0.02)])
    return numbers.tolist()


def _format_value(header: Dataset, tag: str) -> str:
    if tag == _FOLDER:
        return str(Path(header.filename).parent)
    return format_values(header, tag) if get_values(header, tag) else ""


def _name_values(tag: str, column: Sequence[str]) -> dict[str, str]:
    """Words for each value of a tag: the value itself, what the others lack, or its number."""
    distinct = list(dict.fromkeys(column))
    names = {value: value.removesuffix(".0") or "unknown" for value in distinct}
    if tag == "ImageType":
        shared = set.intersection(*(set(value.split("\\")) for value in distinct))
        names = {value: " ".join(w for w in value.split("\\") if w not in shared) or value for value in distinct}
    elif tag == _FOLDER:
        names = {value: Path(value).name for value in distinct}
    elif tag in _NUMBERED:
        names = {value: str(i) for i, value in enumerate(distinct, 1)}
    if len(set(names.values())) < len(distinct):
        names = {value: str(i) for i, value in enumerate(distinct, 1)}
    return {value: _REPEATED[tag].format(words) for value, words in names.items()}
