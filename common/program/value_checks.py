"""What the words of a command line alone show to be wrong with its values, found before torch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .cli_help import parse_arguments

_REFERENCES = ("$", "@", "%")  # a key of a config may be an expression
_NUMBER = r"(\d+\.?\d*|\.\d+)"
_FACTOR = r"[1-9]\d*\.?\d*"
_AXIS = "['\"]?(auto|lr|ap|si)['\"]?"


def _match(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.IGNORECASE).fullmatch


def _is_share(word: str) -> bool:
    """Whether a word is a part of a number of parts."""
    found = re.fullmatch(r"(\d+)/(\d+)", word)
    return found is not None and 1 <= int(found[1]) <= int(found[2])


# What a value must be, and how to say so.
_VALUES: dict[str, tuple[Callable[[str], object], str]] = {
    "amp": (_match("true|false|none|null"), "True or False"),
    **dict.fromkeys(
        ("adapt_iterations", "iterations", "data_consistency_iterations", "seed"),
        (_match(r"\d+"), "a whole number of at least 0"),
    ),
    "scale": (
        _match(rf"[\[(]? *{_FACTOR}( *[x,] *{_FACTOR} *[x,] *{_FACTOR})? *[\])]?"),
        "three factors, such as 2x2x1, or the largest of them",
    ),
    "spacing": (_match(rf"(?=.*[1-9]){_NUMBER}|none|null"), "mm, such as 0.8"),
    "slice_axis": (_match(rf"[\[(]? *{_AXIS}( *, *{_AXIS})* *[\])]?"), "auto, LR, AP or SI"),
    "shard": (_is_share, "part/parts, such as 3/16"),
    "device": (_match(r"(cpu|cuda|mps)(:\d+)?"), "cpu, cuda or cuda:1; without --device the best is taken"),
    "acquired_matrix": (
        _match(r"header|[\[(]? *\d+ *[x,] *\d+ *[x,] *\d+ *[\])]?"),
        'header, or three numbers of voxels along the axes of the file, such as "[256,205,44]"',
    ),
}
_CHECKED = ("super-resolve", "degrade", "demo")  # whose options have these values

# Options and words that name what must be there.
_FILES = {
    "super-resolve": ("checkpoint", "grid_file", "region"),
    "compare": ("scan", "result", "hr"),
    "judge": ("left_out", "scan", "hr", "lesions", "interval", "region", "lpips", "cases", "calibrate"),
    "label": ("label_map", "reference"),
    "simulate": ("labels", "scans"),
    "export": ("bundle", "checkpoint"),
    "ablate": ("dataset_dir",),
    "datalist": ("dataset_dir",),
}
_WORDS = {"compare": ("scan", "result"), "label": ("label_map", "reference"), "export": ("bundle",)}
_FILE_OR_FOLDER = ("super-resolve", "degrade")  # whose output may also be the file of a result


def find_wrong_values(command: str, words: Sequence[str]) -> list[str]:
    """Return a sentence for each value of a command line that it cannot be.

    Args:
        command: its name.
        words: what follows it.
    """
    alone, options = parse_arguments(words)
    free = [word for word, after in alone if not after]
    named = {**dict(zip(_WORDS.get(command, ()), free, strict=False)), **options}
    if command not in ("compare", "label"):  # whose -o is a file
        named.setdefault("output_dir", named.get("o"))
    given: dict[str, str] = {name: value for name, value in named.items() if value is not None}
    problems = []
    for name, (fits, expected) in _VALUES.items():
        value = given.get(name)
        if command in _CHECKED and value is not None and not (value.startswith(_REFERENCES) or fits(value)):
            problems.append(f"--{name} is {value!r}, expected {expected}.")
    for name in _FILES.get(command, ()):
        if name in given and not _is_there(given[name]):
            problems.append(f"--{name} {given[name]}: there is no such file or folder.")
    scans = free if command == "judge" else free[:1] if command == "degrade" else []
    problems += [f"{word}: there is no such file or folder." for word in scans if not _is_there(word)]
    if output := given.get("output_dir"):
        is_result = command in _FILE_OR_FOLDER and output.endswith((".nii.gz", ".nii"))
        path = Path(output).expanduser().absolute()
        if files := [place for place in [*[path] * (not is_result), *path.parents] if place.is_file()]:
            problems.append(f"--output_dir {output}: {files[0]} is a file, expected a folder; name another.")
    return problems


def _is_there(value: str) -> bool:
    return value.startswith(_REFERENCES) or os.path.lexists(os.path.expanduser(value))
