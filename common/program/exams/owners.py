"""Whose a scan is, and which scans are of one person and visit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...io.files import read_sidecar
from ...runtime.distributed import print_once
from ..cases.case import Case
from .people import EXPECTED_PERSON, Owner, explain_difference, is_same_person, make_owner


def read_metadata(case: Case) -> Any:
    """The header of a case's DICOM series, or its sidecar JSON; ``get`` takes keywords of DICOM."""
    series = case.series.get(case["image"])
    if series is None:
        return read_sidecar(case["image"])[0]
    return series.headers[0] if series.headers else {}


def identify_owner(case: Case) -> Owner:
    """The owner of a scan, or of the first series of a case."""
    series = case.series.get(case["image"])
    path = case["image"] if series is None else next(iter(map(str, series.files)), "")
    return make_owner(path, read_metadata(case), case.source)


def warn_of_another_visit(case: Case, first: Owner, second: Owner) -> None:
    """Give a case a warning if two volumes are of different visits, and a problem if they are of different people."""
    if reason := explain_difference(first, second, visits=True):
        case.problem = f"{reason}, {EXPECTED_PERSON}."
    elif reason := explain_difference(first, second):
        case.add_warning(f"{reason}; check that they fit together.", UserWarning)


def describe_unknown(cases: Sequence[Case]) -> str | None:
    """A notice that names scans of which nothing says that they are of the first one's person; None without such."""
    first, *others = map(identify_owner, cases)
    unknown = [owner.name for owner in others if not is_same_person(first, owner)]
    if not unknown:
        return None
    return (
        f"no header, sidecar JSON or label sub- names the person of {', '.join([first.name, *unknown])}; check that "
        "they are of one person and visit."
    )


def split_by_owner(cases: Sequence[Case]) -> list[list[Case]]:
    """Split scans into those of one person and visit, in the order of their first scans.

    Args:
        cases: scans that are of one exam if nothing speaks against it.

    Returns:
        The groups. A scan that may belong to several is alone.
    """
    owners = [identify_owner(case) for case in cases]
    unlike = {
        (i, j) for i, one in enumerate(owners) for j, other in enumerate(owners) if explain_difference(one, other)
    }
    for i, j in sorted(unlike)[:1]:
        print_once(f"not combined: {explain_difference(owners[i], owners[j])}")
    groups: list[list[int]] = []
    for i in sorted(range(len(cases)), key=lambda i: not any(first == i for first, _ in unlike)):
        fits = [group for group in groups if not any((i, j) in unlike for j in group)]
        surely = [group for group in fits if any(is_same_person(owners[i], owners[j]) for j in group)]
        for known in (surely, fits):
            if len(known) == 1:
                known[0].append(i)
                break
        else:
            groups.append([i])
    return [[cases[i] for i in sorted(group)] for group in sorted(groups, key=min)]
