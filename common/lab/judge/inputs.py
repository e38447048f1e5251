"""Read the persons that a command line or a table names, and what is asked about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...io.formats import explain_missing_content
from ...io.naming import make_case_stem
from ...program.lists import read_list
from ...program.volume import Volume, match_hr, place_stack
from .added import Added
from .anatomy import Anatomy
from .assessment import Assessment
from .interval import IntervalCoverage
from .left_out import LeftOut
from .lesions import Lesions
from .person import Person
from .repeated import Repeated
from .scores import Scores
from .segmentation import check_labels_option, is_pattern
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
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
    check_options(results, given)
    given |= {option: Volume.read(given[option], f"--{option}") for option in _VOLUMES if option in given}
    if "repeated" in given:
        names = given["repeated"]
        names = _split_names(names) if isinstance(names, str) else map(str, names)
        given["repeated"] = [Volume.read(name, "--repeated") for name in names]
    read = [Volume.read(result, "the result") for result in results]
    if "scan" in given:
        stacks = [result for result in read if result.stacks]
        given["scan"] = place_stack(given["scan"], stacks[0]) if stacks else given["scan"]
    grids = [given.get("scan", read[0])] * len(read)
    if len(given.get("repeated", ())) == len(read):
        grids = given["repeated"]
    read = [each.order_like(grid) for each, grid in zip(read, grids, strict=True)]
    if "interval" in given:
        given["interval"] = given["interval"].order_like(read[0])
    units = None
    if "hr" in given:
        given["hr"], units = match_hr(given["hr"], read[0], given.get("scan"))
    if "region" in given:
        given["region"] = replace(given["region"], voxels=(given["region"].voxels > 0).astype(np.float32))
    of_all = {key: given[key] for key in ("scan", "hr", "labels", "anatomy") if key in given}
    person = Person(name or make_case_stem(read[0].label), read, **of_all, units=units)
    person.check({f"--{option}": given[option] for option in _COMPARED if option in given}, given.get("repeated", ()))
    assessments = [assessment(person, given) for assessment in ASSESSMENTS if given.keys() & {*assessment.asked_by}]
    return person, assessments


def check_options(results: Sequence[str], options: Mapping[str, Any]) -> None:
    """Check that there are results, and options that go together, before any file is read.

    Args:
        results, options: as for :func:`read_person`.
    """
    given = {key for key, value in options.items() if value is not None and value is not False}
    if not results:
        raise ValueError("judge: no result is named; give the super-resolved volume, or --cases FILE for many.")
    if "region" in given and not {"left_out", "hr"} & given:
        raise ValueError(f"judge: --region {options['region']} goes with --left_out or --hr; name one of them.")
    if not any(given & {*assessment.asked_by} for assessment in ASSESSMENTS):
        raise ValueError(
            f"judge: there is nothing to compare {results[0]} with; give --left_out, --repeated, --scan or --hr."
        )
    if "labels" in given:
        check_labels_option(options["labels"])


def read_cases(file: str, given: Mapping[str, Any], calibrates: bool = False) -> list[dict[str, Any]]:
    """Read a list of persons, and check all of it: the options of each line.

    The columns are ``person``, ``results`` and options. Relative paths are relative to the list's folder. Several
    names have ``;`` between them.

    Args:
        file: of the kinds of :func:`~common.program.lists.read_list`.
        given: options of the command line by name, for lines that do not have them.
        calibrates: whether each line must have a scan and HR.

    Raises:
        FileNotFoundError: when there is no such list.
        ValueError: names each line with a problem, such as a file that is not there.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"judge: --cases {file}: there is no such file.")

    persons: dict[str, str] = {}  # by their files

    def find_problems(cells: Mapping[str, str]) -> Iterator[str]:
        files = str(sorted((name, cell) for name, cell in cells.items() if name != "person"))
        if files in persons:
            yield f"all files are those of {persons[files]} above; take out one of the two lines."
        persons.setdefault(files, cells["person"])
        try:
            parsed = _parse_cells(cells, path.parent)
            check_options(parsed["results"], {**given, **parsed})
        except ValueError as error:
            yield str(error).removeprefix("judge: ")
            return
        for name in ("scan", "hr") if calibrates else ():
            if name not in parsed:
                yield f"{name} is empty; --calibrate needs it."
        for option, value in parsed.items():
            for name in value if isinstance(value, list) else [value] if option in (*_VOLUMES, "lpips") else []:
                gone = None if Path(name).exists() else "there is no such file or folder."
                if why := explain_missing_content(name) or gone:
                    yield f"{option} {name}: {why}"

    lines = read_list(path, ("person", "results"), [*given], find_problems)
    return [{**given, **_parse_cells(line.cells, path.parent)} for line in lines]


def _parse_cells(cells: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The options of a line; relative paths are those of a folder."""
    parsed: dict[str, Any] = dict(cells)
    for option, text in cells.items():
        if option in ("results", "repeated"):
            parsed[option] = _split_names(text, ";" if option == "results" or ";" in text else ",", folder)
        elif option in (*_VOLUMES, "lpips") or (option == "labels" and is_pattern(text)):
            parsed[option] = str(folder / text)
        elif option == "anatomy":
            if text.lower() not in _SWITCHES:
                raise ValueError(f"anatomy is {text}, expected True or False.")
            parsed[option] = _SWITCHES[text.lower()]
    return parsed


def _split_names(text: str, separator: str = ",", folder: Path = Path()) -> list[str]:
    """Names with a separator between them, in a folder. A file whose own name has the separator is one."""
    names = [text] if (folder / text).exists() else [name.strip() for name in text.split(separator)]
    return [str(folder / name) for name in names if name]
