"""Whose a volume is: its person and its visit, by DICOM header, sidecar JSON and BIDS's labels."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

from ...io.files import read_sidecar
from ...runtime.distributed import print_once
from ..case import Case

# Values that anonymisers write for every patient.
_BLANK = re.compile(
    r"(anon(ymi[sz]ed|ymous)?|de-?identified|redacted|removed|unknown|none|null|n/?a|no|name|patient|id|x+|0+)?",
    re.IGNORECASE,
)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_LABELS = {kind: re.compile(rf"(?<![a-z0-9]){kind}-[a-z0-9]+", re.IGNORECASE) for kind in ("sub", "ses")}
_SURE = ("PatientID", "PatientName", "sub")  # many people share the other properties
_SHOWN = {"PatientID": "PatientID ", "sub": "", "ses": "", "StudyInstanceUID": "the study ", "date": "the day "}
_DATES = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "SeriesDate")
_PERSON = "expected the same person; name scans of one person, or correct what is wrong"
_VISIT = "expected the same visit; to combine visits, say visits after --together or --exam"


@dataclass(frozen=True)
class Owner:
    """What is known of the person and the visit of a volume.

    Attributes:
        name: the volume's file or series, for messages.
        person: values by kind: PatientID, PatientName, PatientBirthDate, PatientSex, and BIDS's "sub".
        visit: likewise, the kinds that decide first: BIDS's "ses", StudyInstanceUID, and "date".
    """

    name: str
    person: Mapping[str, str]
    visit: Mapping[str, str]


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


def make_owner(path: str | os.PathLike, metadata: Any = None, name: str | None = None, labelled: bool = True) -> Owner:
    """The owner of a file.

    Args:
        path: of the file; the last label of a kind in it counts.
        metadata: with ``get``, as :func:`read_metadata`; default the file's sidecar JSON.
        name: for messages; default the path.
        labelled: whether BIDS's ``sub-`` says who it is.
    """
    metadata = read_sidecar(path)[0] if metadata is None else metadata
    text = os.path.abspath(path)
    labels = {kind: found[-1] for kind, label in _LABELS.items() if (found := label.findall(text))}
    sex, birth = _read(metadata, "PatientSex").upper(), re.sub(r"\D", "", _read(metadata, "PatientBirthDate"))
    person = {
        "PatientID": _read(metadata, "PatientID"),
        "PatientName": re.sub(r"[\W_]+", " ", _read(metadata, "PatientName")).strip(),
        "PatientBirthDate": birth.strip("0"),
        "PatientSex": sex if sex in ("M", "F") else "",
        "sub": labels.get("sub", "") if labelled else "",
    }
    visit = {
        "ses": labels.get("ses", ""),
        "StudyInstanceUID": _read(metadata, "StudyInstanceUID"),
        "date": next((day for key in _DATES if (day := re.sub(r"\D", "", _read(metadata, key))[:8])), ""),
    }
    return Owner(
        name or str(path), *({key: value for key, value in known.items() if value} for known in (person, visit))
    )


def explain_difference(first: Owner, second: Owner, visits: bool = False) -> str | None:
    """Why two volumes are not of one person and visit: what each is of; None if nothing says so.

    Names and birth dates are not shown.

    Args:
        first, second: owners.
        visits: whether they may be of different visits.
    """
    kinds = [key for key in first.person if _differ(key, first.person, second.person)]
    if not kinds and not visits:
        kinds = [key for key in first.visit if key in second.visit][:1]
        kinds = [key for key in kinds if _differ(key, first.visit, second.visit)]
    if not kinds:
        return None
    if (key := kinds[0]) not in _SHOWN:
        return f"{first.name}: it and {second.name} differ in {key}"
    values = [_SHOWN[key] + {**owner.person, **owner.visit}[key] for owner in (first, second)]
    return f"{first.name}: it is of {values[0]}, and {second.name} of {values[1]}"


def warn_of_another_visit(case: Case, first: Owner, second: Owner) -> None:
    """Give a case a warning if two volumes are of different visits, and a problem if they are of different people."""
    if reason := explain_difference(first, second, visits=True):
        case.problem = f"{reason}, {_PERSON}."
    elif reason := explain_difference(first, second):
        case.add_warning(f"{reason}; check that they fit together.", UserWarning)


def is_same_person(first: Owner, second: Owner) -> bool:
    """Whether something says that two volumes are of one person."""
    pairs = [(first.person, second.person, key) for key in _SURE] + [(first.visit, second.visit, "StudyInstanceUID")]
    return any(key in one and key in other and not _differ(key, one, other) for one, other, key in pairs)


def explain_strangers(cases: Sequence[Case], visits: bool = False) -> str | None:
    """Why scans are not of one person and visit, and what to do; None if nothing says so.

    Args:
        cases: scans.
        visits: whether they may be of different visits.
    """
    for first, second in combinations(map(identify_owner, cases), 2):
        if (reason := explain_difference(first, second, visits)) is not None:
            return f"{reason}, {_PERSON if explain_difference(first, second, visits=True) else _VISIT}."
    return None


def describe_unknown(cases: Sequence[Case]) -> str | None:
    """A notice that names scans of which nothing says that they are of the first one's person; None without such."""
    first, *others = map(identify_owner, cases)
    unknown = [owner.name for owner in others if not is_same_person(first, owner)]
    if not unknown:
        return None
    return (
        f"nothing says whose {', '.join([first.name, *unknown])} are, neither headers nor sidecar JSON nor a label "
        "sub-; check that they are of one person and visit."
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


def _read(metadata: Any, key: str) -> str:
    """A text; empty if it is missing, or says nothing."""
    value = metadata.get(key)
    text = str(value).strip() if isinstance(value, str | int | float) or hasattr(value, "components") else ""
    return "" if all(map(_BLANK.fullmatch, re.split(r"[\s^]+", text))) else text


def _differ(key: str, first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether two properties that are both known differ; names only where no PatientID decides."""
    if key not in first or key not in second:
        return False
    one, other = first[key].casefold(), second[key].casefold()
    if key == "PatientName":  # "DOE^JOHN^M" and "John Doe" are one
        words, others = (set(unicodedata.normalize("NFKD", name.translate(_UMLAUTS)).split()) for name in (one, other))
        words, others = ({re.sub("[\u0300-\u036f]", "", word) for word in each} for each in (words, others))
        return not (("PatientID" in first and "PatientID" in second) or words <= others or others <= words)
    if key == "date":  # a visit may last until after midnight
        with contextlib.suppress(ValueError):
            days = [datetime.strptime(text, "%Y%m%d") for text in (one, other)]
            return abs((days[0] - days[1]).days) > 1
        return False
    return one.replace(" ", "") != other.replace(" ", "")
