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

# Values that anonymisers write for every patient.
_BLANK = re.compile(
    r"(anon(ymi[sz]ed|ymous)?|de-?identified|redacted|removed|unknown|none|null|n/?a|no|name|patient|id|x+|0+)?",
    re.IGNORECASE,
)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_LABELS = {kind: re.compile(rf"(?<![a-z0-9]){kind}-[a-z0-9]+", re.IGNORECASE) for kind in ("sub", "ses")}
_SURE = ("PatientID", "PatientName", "sub")  # many people share the other properties
_SHOWN = {"PatientID": "PatientID ", "sub": "", "ses": "", "StudyInstanceUID": "the study ", "date": "the day "}
IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate")  # in DICOM
_DATES = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "SeriesDate")
EXPECTED_PERSON = "expected the same person; name scans of one person, or correct what is wrong"


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


def make_owner(path: str | os.PathLike, metadata: Any = None, name: str | None = None, labelled: bool = True) -> Owner:
    """The owner of a file.

    Args:
        path: of the file; the last label of a kind in it counts.
        metadata: with ``get``, which takes keywords of DICOM; default the file's sidecar JSON.
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


def is_same_person(first: Owner, second: Owner) -> bool:
    """Whether something says that two volumes are of one person."""
    pairs = [(first.person, second.person, key) for key in _SURE] + [(first.visit, second.visit, "StudyInstanceUID")]
    return any(key in one and key in other and not _differ(key, one, other) for one, other, key in pairs)


def explain_strangers(owners: Sequence[Owner], visits: bool = False) -> str | None:
    """Why volumes are not of one person and visit, and what to do; None if nothing says so.

    Args:
        owners: of the volumes.
        visits: whether they may be of different visits.
    """
    for pair in combinations(owners, 2):
        if (reason := explain_difference(*pair, visits=True)) is not None:
            return f"{reason}, {EXPECTED_PERSON}."
        if not visits and (reason := explain_difference(*pair)) is not None:
            return f"{reason}, expected the same visit; to combine visits, say visits after --together or --exam."
    return None


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
