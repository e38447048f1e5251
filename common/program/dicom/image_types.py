"""Kinds of images by the words in DICOM or a sidecar JSON. Imports no other package."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words before "phase" that name a Dixon or contrast phase, which is a magnitude image.
NO_PHASE = set(
    "IN OUT OP OPP OPPOSED OPPOSITE MULTI CARDIAC ARTERIAL VENOUS PORTAL DELAYED LATE EARLY HEPATOBILIARY "
    "EQUILIBRIUM".split()
)
# Letters of the parts of a complex image, in tags; "CR" is Philips' corrected real part.
_LETTERS = {"phase image": "P", "real part": "C?R", "imaginary part": "I"}
_IMAGE = r"(_?(PART|MAPS?|IMG|IMAGES?|DIFF(ERENCE)?))?"
# Whole words for the parts. "SW" and "FFE" are Philips' susceptibility and gradient echo.
_WORDS = {
    kind: rf"(SW_)?{_LETTERS[kind]}_FFE|SW_{_LETTERS[kind]}|{words}"
    for kind, words in {
        "phase image": rf"(PH|PHS|PHA|PHASE|VELOCITY){_IMAGE}|(?!({'|'.join(NO_PHASE)})_)[A-Z0-9]+_PHASE",
        "real part": rf"REAL{_IMAGE}",
        "imaginary part": rf"IMAG(INARY)?{_IMAGE}",
    }.items()
}
# Whole words for computed images, in tags and descriptions.
_COMPUTED = {
    "map": (
        r"(FAT|WATER)_?FRAC(TION)?|PDFF|R2STAR|[TR][12](STAR|RHO)?_?MAPS?|B[01]_?MAP|R?(REL)?(C?CBV|CBF)|KTRANS|COL(OR_)?FA|"
        r"APPARENT_DIFFUSION_COEFFICIENT|FRACTIONAL_ANISOTROPY|ELASTOGRAM|SUBTRACT(ION|ED)S?|(?<=_)SUB$"
    ),
    "projection": r"M(I?N|AX)_?M?IP|M(AX|IN)(IMUM)?_(INTENSITY_)?PROJECTIONS?",
}
_SHORT = {
    "map": r"E?ADC|G?FA(?!_\d)|FF|QSM|MTR|MTSAT|(R|REL)?(MTT|TTP)|TMAX|PBP|KEP|R2S|NDI|ODI|ISOVF|TSNR",
    "projection": r"[TC]?MIPS?|VRT|SSD",
}
_TYPES = {
    **{kind: rf"(SW_)?{_LETTERS[kind]}(_[A-Z0-9_]+)?|{words}" for kind, words in _WORDS.items()},
    "map": (
        rf"{_COMPUTED['map']}|{_SHORT['map']}|E?ADC_.*|TENSOR|(.*_)?MAP|FIELDMAP|T_?TEST|R2\*?|TEMPERATURE|STIFFNESS"
    ),
    "mask": r"MASK|SEGMENTATION|LABEL_?MAP",
    "localizer": r"LOCALIZER|SCOUT|SURVEY",
    "projection": rf"{_COMPUTED['projection']}|{_SHORT['projection']}|PROJECTION_IMAGE|VOLREN|VOLUME_RENDERING",
}
_MAGNITUDE = r"(SW_)?M(_[A-Z0-9_]+)?|MAG(NITUDE)?(_.*)?"


def classify_type(words: Sequence[str]) -> str | None:
    """The kind of an image that is not a magnitude image.

    Args:
        words: words of its ImageType, or of another tag with such words, in capitals.

    Returns:
        "phase image", "real part", "imaginary part", "map", "mask", "localizer" or "projection"; None if no word
        shows one of these.
    """
    words = [word.replace(" ", "_") for word in words]
    return next((kind for kind, pattern in _TYPES.items() if any(re.fullmatch(pattern, word) for word in words)), None)


def classify_name(name: str) -> str | None:
    """The kind of a derived image by words in its description.

    Args:
        name: words in capitals, joined by "_".

    Returns:
        "map" or "projection"; None if no word says one of these.
    """
    for kind, words in _COMPUTED.items():
        if re.search(rf"(?<![A-Z0-9])({words}|{_SHORT[kind]})(?![A-Z0-9])", name):
            return kind
    return None


def is_magnitude(words: Sequence[str]) -> bool:
    """Whether a word of an ImageType, in capitals, says that the image is a magnitude image."""
    return any(re.fullmatch(_MAGNITUDE, word) for word in words)
