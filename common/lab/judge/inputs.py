"""Read the persons that a command line or a table names, and what is asked about them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...io.naming import make_case_stem
from ...program.volume import Volume, match_grid
from .added import Added
from .anatomy import Anatomy
from .assessment import Assessment
from .interval import IntervalCoverage
from .left_out import LeftOut
from .lesions import Lesions
from .person import Person
from .repeated import Repeated
from .scores import Scores
from .segmentation import is_pattern
from .verdict import Verdict

#: In the order of the page.
ASSESSMENTS: tuple[type[Assessment], ...] = (
    Verdict,
    LeftOut,
    Repeated,
    Anatomy,
    Lesions,
    Added,
    IntervalCoverage,
    Scores,
)
_COMPARED = ("hr", "scan", "left_out", "interval")  # options that name one volume
_VOLUMES = (*_COMPARED, "region", "lesions")  # and those that name a mask


def read_person(
    results: Sequence[str], options: Mapping[str, Any], name: str | None = None
) -> tuple[Person, list[Assessment]]:
    """Read the files of one person, and check that they belong together.

    Args:
        results: names of the results.
        options: of :func:`common.program.commands.judge.judge`, by name; None for those that are not given.
        name: of the person; None for the name of the first result.

    Returns:
        The person, and the assessments that the options ask for.

    Raises:
        FileNotFoundError, ImportError, ValueError: when a file cannot be read or does not belong to the others.
    """
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if not results:
        raise ValueError("judge: no result is named; give the super-resolved volume, or --cases FILE for many.")
    given |= {option: Volume.read(given[option], f"--{option}") for option in _VOLUMES if option in given}
    if "repeated" in given:
        given["repeated"] = [Volume.read(scan, "--repeated") for scan in _split_names(given["repeated"])]
    read = [Volume.read(result, "the result") for result in results]
    grids = [given.get("scan", read[0])] * len(read)
    if len(given.get("repeated", ())) == len(read):
        grids = given["repeated"]
    read = [each.order_like(grid) for each, grid in zip(read, grids, strict=True)]
    for option in {"hr", "interval"} & given.keys():
        given[option] = given[option].order_like(read[0])
    if "hr" in given:
        given["hr"] = match_grid(given["hr"], read[0])
    if "region" in given:
        given["region"] = replace(given["region"], voxels=(given["region"].voxels > 0).astype(np.float32))
    of_all = {key: given[key] for key in ("scan", "hr", "labels", "anatomy") if key in given}
    person = Person(name or make_case_stem(read[0].label), read, **of_all)
    if "region" in given and not {"left_out", "hr"} & given.keys():
        raise ValueError(f"judge: --region {given['region'].name} goes with --left_out or --hr; name one of them.")
    person.check({f"--{option}": given[option] for option in _COMPARED if option in given}, given.get("repeated", ()))
    person.match_units()
    assessments = [assessment(person, given) for assessment in ASSESSMENTS if given.keys() & {*assessment.asked_by}]
    if not assessments:
        raise ValueError(
            f"judge: there is nothing to compare {read[0].name} with; give --left_out, --repeated, --scan or --hr."
        )
    return person, assessments


def _split_names(value: str | Sequence[str]) -> list[str]:
    """Names from a list, or from a text with commas between them."""
    if isinstance(value, str):
        return [value] if Path(value).exists() else [each.strip() for each in value.split(",")]
    return [str(each) for each in value]


def read_table(file: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a table of persons: the options of each line, with the columns ``person``, ``results`` and options.

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
    if not rows or not {"person"} <= {*(reader.fieldnames or ())} <= {"person", "results", *columns}:
        raise ValueError(
            f"judge: --cases {file} has {len(rows)} lines under {', '.join(reader.fieldnames or ['nothing'])}; "
            f"expected the columns person, results and any of {', '.join(columns)}."
        )
    filled = [{key: value.strip() for key, value in row.items() if key and value and value.strip()} for row in rows]
    return [{key: _parse_cell(key, value, path.parent) for key, value in row.items()} for row in filled]


def _parse_cell(option: str, value: str, folder: Path) -> Any:
    """An option of a line, with paths relative to a folder resolved."""
    if option in ("results", "repeated"):
        names = value.split(";") if option == "results" else _split_names(value)
        return [str(folder / name.strip()) for name in names]
    if option in (*_VOLUMES, "lpips") or (option == "labels" and is_pattern(value)):
        return str(folder / value)
    return value.lower() == "true" if option == "anatomy" else value
