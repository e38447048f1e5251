"""Kinds of DICOM images by their tags: magnitude scans, and images that super-resolution is not for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from .image_types import kind_by_type
from .tags import text, words

ENHANCED = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, EnhancedMRColorImageStorage)

# Modalities that are not MR, whatever the SOPClassUID says.
_MODALITIES = set(
    "BI CR CT DX ES IO IVUS KO MG NM OCT OP OPT PR PT PX REG RF RG RTDOSE RTIMAGE RTPLAN RTSTRUCT "
    "SEG SM SR US XA XC".split()
)
# In the SeriesDescription of a derived image whose ImageType does not show its kind.
_NAMES = r"E?ADC|APPARENT DIFFUSION COEFFICIENT|FRACTIONAL ANISOTROPY|COLFA|T[12]\*?[ _]MAP|R?CB[VF]|MTT|TTP|KTRANS"
_COMPONENTS = {"PHASE": "phase image", "REAL": "real part", "IMAGINARY": "imaginary part"}
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


def no_scan(headers: Sequence[Dataset]) -> str | None:
    """Why super-resolution is not for a series. This is not a fault of the series.

    Args:
        headers: headers of its images.

    Returns:
        Its kind, the tag that shows it, and what to do; None if an image may belong to a magnitude MR scan.
    """
    reasons = [_reason(header) for header in headers]
    return reasons[0] if all(reasons) else None


def kind(header: Dataset) -> str:
    """The kind of an image by its tags; "magnitude" if they show no other."""
    return _kind(header)[0]


def is_mosaic(header: Dataset) -> bool:
    """Whether an image holds all slices of a volume next to each other, as Siemens stores them."""
    count = _private(header, 0x0019, 0x0A, "SIEMENS MR HEADER")
    return "MOSAIC" in words(header, "ImageType") or (count or 0) > 1


def _reason(header: Dataset) -> str | None:
    """Why an image does not belong to a magnitude MR scan, or None."""
    found, evidence = _kind(header)
    if found != "magnitude":
        return f"{'an' if found[0] == 'i' else 'a'} {found} ({evidence}): {_ADVICE[found]}"
    sop_class, modality = header.get("SOPClassUID"), text(header, "Modality")
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


def _kind(header: Dataset) -> tuple[str, str]:
    """The kind of an image, and the tag that shows it."""
    component = words(header, "ComplexImageComponent")
    if component and component[0] in _COMPONENTS:
        return _COMPONENTS[component[0]], f"Complex Image Component {component[0]}"
    code = _private(header, 0x0043, 0x2F, "GEMS_PARM_01")
    if code in _GE:
        return _GE[code], f"GE's (0043,102F) is {code}"
    image_type = words(header, "ImageType")
    if (found := kind_by_type(image_type)) is not None:
        return found, f"ImageType {text(header, 'ImageType')}"
    name = text(header, "SeriesDescription").upper()
    says_nothing = image_type[:1] == ["DERIVED"] and set(image_type[2:]) <= {"OTHER"}
    if says_nothing and re.search(rf"(?<![A-Z0-9])({_NAMES})(?![A-Z0-9])", name):
        return "map", f"ImageType {text(header, 'ImageType')}, SeriesDescription '{header.SeriesDescription}'"
    return "magnitude", ""


def _private(header: Dataset, group: int, element: int, creator: str) -> int | None:
    """A whole number in a private block of a creator. If no block names its creator, element 10 is tried."""
    blocks = [e.tag.element for e in header.group_dataset(group) if 0x10 <= e.tag.element <= 0xFF]
    owners = {block: str(header[group, block].value).strip() for block in blocks}
    for block in [block for block, owner in owners.items() if owner == creator] or ([] if owners else [0x10]):
        found = header.get((group, (block << 8) + element))
        if found is None:
            continue
        value = int.from_bytes(found.value[:2], "little") if isinstance(found.value, bytes) else found.value
        try:
            return int(value)
        except (TypeError, ValueError):
            continue
    return None
