"""Read the persons that a command line or a table names."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.naming import make_case_stem
from .person import Person
from .segmentation import is_pattern
from .volume import Volume

_VOLUMES = ("scan", "hr", "left_out", "region", "lesions", "interval", "insert_lesions")  # options that name one volume
_INSERTION = ("scale", "bundle", "noise")  # options of inserted lesions


def read_person(results: Sequence[str], options: Mapping[str, Any], name: str | None = None) -> Person:
    """Read the files of one person, and check that they belong together.

    Args:
        results: names of the results.
        options: of :func:`common.commands.judge`, by name; None for those that are not given.
        name: of the person; None for the name of the first result.

    Raises:
        FileNotFoundError, ImportError, ValueError: when a file cannot be read or does not belong to the others.
    """
    inserting = options.get("insert_lesions") is not None
    if not results and not inserting:
        raise ValueError("judge: no result is named; give the super-resolved volume, or --cases FILE for many.")
    volumes: dict[str, Any] = {
        option: None if options.get(option) is None else Volume.read(options[option], f"--{option}")
        for option in _VOLUMES
    }
    read = [Volume.read(result, "the result") for result in results]
    repeated = [Volume.read(scan, "--repeated") for scan in _split_names(options.get("repeated"))]
    names = ("labels", "anatomy", "lpips", "bundle", "device")
    others = {key: options[key] for key in names if options.get(key) is not None}
    others |= _read_insertion(options)
    stem = make_case_stem((volumes["insert_lesions"] if inserting else read[0]).label)
    person = Person(name or stem, read, **volumes, repeated=repeated, **others)
    person.check()
    return person


def _read_insertion(options: Mapping[str, Any]) -> dict[str, Any]:
    """Scale and noise of the scans with inserted lesions."""
    of_no_part = ("person", "results", "device")
    given = {key: options[key] for key in options if key not in of_no_part and options[key] is not None}
    if "insert_lesions" not in given:
        if wrong := [f"--{key}" for key in _INSERTION if key in given]:
            raise ValueError(f"judge: {' and '.join(wrong)}: that is for --insert_lesions HR; name it too.")
        return {}
    if wrong := [f"--{key}" for key in given if key not in ("insert_lesions", *_INSERTION)]:
        raise ValueError(f"judge: --insert_lesions goes without {' and '.join(wrong)}; ask in a run of its own.")
    scale, noise = given.get("scale"), given.get("noise", Person.noise)
    with contextlib.suppress(ValueError):
        scale, noise = json.loads(scale) if isinstance(scale, str) else scale, float(noise)
    if (
        not isinstance(scale, list | tuple)
        or [type(n) for n in scale] != [int] * 3
        or min(scale) < 1
        or max(scale) == 1
    ):
        raise ValueError(
            f"judge: --scale is {scale!r}, expected voxels of HR for one of the scan along the axes of the file, such "
            'as "[2,2,2]" or "[1,1,4]".'
        )
    if not isinstance(noise, float) or not 0 <= noise < 1:
        raise ValueError(f"judge: --noise is {noise!r}, expected parts of the tissue's brightness, such as 0.02.")
    return {"scale": tuple(scale), "noise": noise}


def _split_names(value: str | Sequence[str] | None) -> list[str]:
    """Names from a list, or from a text with commas between them."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if Path(value).exists() else [each.strip() for each in value.split(",")]
    return [str(each) for each in value]


def read_table(file: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table of persons: a line for each, with the columns ``person``, ``results`` and options.

    Relative paths are relative to the table's folder. Several results have ``;`` between them.

    Args:
        file: a CSV.
        columns: names of the options that it may have.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"judge: --cases {file}: there is no such file.")
    with path.open(newline="", encoding="utf-8-sig") as table:
        reader = csv.DictReader(table)
        rows = list(reader)
    known = ["person", "results", *columns]
    if not rows or not {"person"} <= {*(reader.fieldnames or ())} <= {*known}:
        raise ValueError(
            f"judge: --cases {file} has {len(rows)} lines under {', '.join(reader.fieldnames or ['nothing'])}; "
            f"expected the columns person, results and any of {', '.join(columns)}."
        )
    return [{key: value.strip() for key, value in row.items() if key and value and value.strip()} for row in rows]


def resolve_paths(row: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The options of a line, with paths relative to a folder resolved."""
    resolved: dict[str, Any] = {}
    for key, value in row.items():
        if key == "results":
            resolved[key] = [str(folder / each.strip()) for each in value.split(";")]
        elif key == "repeated":
            resolved[key] = [str(folder / each) for each in _split_names(value)]
        elif key in (*_VOLUMES, "lpips") or (key == "labels" and is_pattern(value)):
            resolved[key] = str(folder / value)
        elif key == "anatomy":
            resolved[key] = value.lower() == "true"
        else:
            resolved[key] = value
    return resolved
