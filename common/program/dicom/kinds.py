"""Kinds of DICOM images by their tags: magnitude scans, and images that super-resolution is not for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from .image_types import NO_PHASE, classify_name, classify_type, is_magnitude
from .tags import format_values, get_numbers, get_values, get_words

ENHANCED = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, EnhancedMRColorImageStorage)

# Modalities that are not MR, whatever the SOPClassUID says.
_MODALITIES = set(
    "BI CR CT DX ES IO IVUS KO MG NM OCT OP OPT PR PT PX REG RF RG RTDOSE RTIMAGE RTPLAN RTSTRUCT "
    "SEG SM SR US XA XC".split()
)
# In the SeriesDescription of an image whose ImageType does not say "magnitude".
_PHASES = (
    r"PHA|PHASE[ _]?(MAP|IMAGES?|DIFF(ERENCE)?)|"
    r"(SWI|SWAN|QSM|GRE|B0|FIELD[ _-]?MAP(PING)?)"
    rf"([ _-](?!({'|'.join(NO_PHASE)})[ _-])[A-Z0-9]+)*[ _-]PHASE(?=[ _-]?\d*$)"
)
# In the description of a localizer; the second ones also name scans, so they count only for few slices.
_LOCALIZERS = (
    r"LO[CK]ALI[SZ]+(ER|IERER|ADOR|ATEUR|ATORE)S?\d*|REP[EÉ]RAGES?|(AA[A-Z]*)?SCOUTS?\d*|TOPOGRAMS?\d*|"
    r"SMART ?BRAIN|PLAN[ _-]?SCAN|(3|THREE|TRI|MULTI)[ _-]?P(L|LANE)?[ _-]?LOC"
)
_PERHAPS = r"SURVEYS?\d*|LOCS?\d*|PILOTS?|(3|THREE|TRI)[ _-]?(PL|PLANES?)"
_FEW = 20  # slices of one orientation
_UNEVEN = 4  # times as many slices of one orientation as of another
# Private tags with words as in ImageType.
_TYPES = {"Siemens": (0x0021, 0x75, "SIEMENS MR SD"), "Philips": (0x2005, 0x11, "Philips MR Imaging DD 001")}
_GE = {1: "phase image", 2: "real part", 3: "imaginary part"}
_ADVICE = {
    "phase image": "super-resolution of a phase is meaningless, choose the magnitude series.",
    "real part": "super-resolution is for magnitude images, choose the magnitude series.",
    "imaginary part": "super-resolution is for magnitude images, choose the magnitude series.",
    "map": "its values are computed and not a signal; choose a series that the scanner acquired.",
    "mask": "it has no signal; choose a scan.",
    "localizer": "a localizer is no scan; choose another series.",
    "projection": "it has no slices; choose the series that it was made from.",
}


def explain_unsuitable_series(headers: Sequence[Dataset]) -> str | None:
    """Why super-resolution is not for a series. This is not a fault of the series.

    Args:
        headers: headers of its images.

    Returns:
        Its kind, what shows it, and what to do; None if an image may belong to a magnitude MR scan.
    """
    reasons = [explain_image_exclusion(header) for header in headers]
    if all(reasons):
        return reasons[0]
    evidence = _find_localizer_sign(headers)
    return f"a localizer ({evidence}): {_ADVICE['localizer']}" if evidence else None


def classify_image(header: Dataset) -> str:
    """The kind of an image by its tags; "magnitude" if they show no other."""
    return _classify(header)[0]


def is_mosaic(header: Dataset) -> bool:
    """Whether an image holds all slices of a volume next to each other, as Siemens and United Imaging store them."""
    counts = [
        read_private_number(header, 0x0019, 0x0A, "SIEMENS MR HEADER"),
        read_private_number(header, 0x0065, 0x50, "Image Private Header"),
    ]
    return bool({"MOSAIC", "VFRAME"} & set(get_words(header, "ImageType"))) or max(count or 0 for count in counts) > 1


def is_slice(header: Dataset) -> bool:
    """Whether an image is one slice of an MR scan, and not a file of many frames."""
    one = header.get("SOPClassUID") == MRImageStorage and header.get("NumberOfFrames") in (None, 1)
    return one and not is_mosaic(header) and explain_image_exclusion(header) is None


def explain_image_exclusion(header: Dataset) -> str | None:
    """Why an image alone is not one of a magnitude MR scan, or None."""
    kind, evidence = _classify(header)
    if kind != "magnitude":
        return f"{'an' if kind[0] == 'i' else 'a'} {kind} ({evidence}): {_ADVICE[kind]}"
    sop_class, modality = header.get("SOPClassUID"), format_values(header, "Modality")
    is_mr = sop_class in (MRImageStorage, *ENHANCED)
    if not is_mr and isinstance(sop_class, UID) and sop_class.type == "SOP Class":
        return f"{sop_class.name} (Modality {modality}): super-resolution is for MR, choose another series."
    if modality.upper() in _MODALITIES:
        return f"its Modality is {modality}: super-resolution is for MR, choose another series."
    if not is_mr and "Rows" not in header:
        return f"no image (SOPClassUID {sop_class}, no Rows): choose another series."
    if header.get("SamplesPerPixel") == 3:
        return "a colour image (SamplesPerPixel 3): it has no signal intensities; choose another series."
    return None


def _find_localizer_sign(headers: Sequence[Dataset]) -> str | None:
    """What shows that a series is a localizer, though its ImageType does not say so; None if nothing does."""
    planes = _count_planes(headers)
    few = bool(planes) and max(planes.values()) <= _FEW
    # Planes at more than 60 degrees. Stacks that follow the discs of a spine are less tilted.
    across = 1 < len(planes) <= 5 and min(abs(np.dot(a, b)) for a, b in itertools.combinations(planes, 2)) < 0.5
    if "EP" not in get_words(headers[0], "ScanningSequence"):  # "localizer" is also a task in functional MRI
        keys = [key for key in ("SeriesDescription", "ProtocolName") if get_values(headers[0], key)]
        for key in keys:
            name = format_values(headers[0], key)
            doubtful = key == keys[0] and (few or across) and _contains_words(name.upper(), _PERHAPS)
            if doubtful or _contains_words(name.upper(), _LOCALIZERS):
                return f"{key} '{name}'"
    if any(read_private_number(header, 0x0019, 0x17, "GEMS_ACQU_01") == 256 for header in headers):
        return "GE's (0019,1017) is 256, three planes"
    # A stray slice in the series of a stack makes no localizer.
    even = few and max(planes.values()) <= _UNEVEN * min(planes.values())
    return f"{len(planes)} planes of at most {max(planes.values())} slices" if even and across else None


def _count_planes(headers: Sequence[Dataset]) -> dict[tuple[float, ...], int]:
    """Normals of a series' planes, which differ by more than some 3 degrees, and numbers of places on each."""
    places: dict[tuple[float, ...], set[str]] = {}
    for header in headers:
        try:
            row, column = np.reshape(get_numbers(header, "ImageOrientationPatient", 6), (2, 3))
        except ValueError:
            return {}
        normal = np.cross(row, column)
        plane = next((known for known in places if abs(np.dot(known, normal)) > 0.9985), tuple(normal.tolist()))
        places.setdefault(plane, set()).add(format_values(header, "ImagePositionPatient"))
    return {plane: len(positions) for plane, positions in places.items()}


def _classify(header: Dataset) -> tuple[str, str]:
    """The kind of an image, and the tag that shows it."""
    component, image_type = get_words(header, "ComplexImageComponent"), get_words(header, "ImageType")
    if (kind := classify_type(component)) is not None:
        return kind, f"Complex Image Component {component[0]}"
    code = read_private_number(header, 0x0043, 0x2F, "GEMS_PARM_01")
    if code in _GE:
        return _GE[code], f"GE's (0043,102F) is {code}"
    if (kind := classify_type(image_type)) is not None:
        return kind, f"ImageType {format_values(header, 'ImageType')}"
    for vendor, tag in _TYPES.items():
        value = _read_private(header, *tag)
        value = value.decode("latin-1").split("\\") if isinstance(value, bytes) else np.atleast_1d(value).tolist()
        value = [str(word).strip().upper() for word in value]
        if (kind := classify_type(value)) is not None and kind in _GE.values():
            return kind, f"{vendor}' private image type is {' '.join(value)}"
    name = format_values(header, "SeriesDescription").upper()
    says_nothing = image_type[:1] == ["DERIVED"] and set(image_type[2:]) <= {"OTHER"}
    described = f"ImageType {format_values(header, 'ImageType')}, SeriesDescription '{header.get('SeriesDescription')}'"
    words = re.sub("[^A-Z0-9]+", "_", name.replace("*", "STAR"))
    if says_nothing and (kind := classify_name(words)) is not None:
        return kind, described
    if not is_magnitude(image_type) and _contains_words(name, _PHASES):
        return "phase image", described
    return "magnitude", ""


def _contains_words(name: str, pattern: str) -> bool:
    """Whether a name in capitals has whole words that fit a pattern."""
    return re.search(rf"(?<![A-Z0-9])({pattern})(?![A-Z0-9])", name) is not None


def read_private_number(header: Dataset, group: int, element: int, creator: str) -> int | None:
    """A whole number in a private block, also if its bytes were not decoded."""
    value = _read_private(header, group, element, creator)
    try:
        return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    except (TypeError, ValueError):
        return None


def _read_private(header: Dataset, group: int, element: int, creator: str) -> Any:
    """A value in a private block whose creator begins so, or None. If no block names its creator, 0x10 is tried."""
    blocks = [e.tag.element for e in header.group_dataset(group) if 0x10 <= e.tag.element <= 0xFF]
    owners = {block: str(header[group, block].value).strip() for block in blocks}
    matching_blocks = [block for block, owner in owners.items() if owner.startswith(creator)]
    elements = [header.get((group, (block << 8) + element)) for block in matching_blocks or ([] if owners else [0x10])]
    return next((each.value for each in elements if each is not None), None)
