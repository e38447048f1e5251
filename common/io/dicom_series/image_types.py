"""Kinds of images by the words in DICOM, a sidecar JSON or a file's name. Imports no other package."""

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
# Whole words for the parts, in tags and names. "SW" and "FFE" are Philips' susceptibility and gradient echo.
_WORDS = {
    kind: rf"(SW_)?{_LETTERS[kind]}_FFE|SW_{_LETTERS[kind]}|{words}"
    for kind, words in {
        "phase image": rf"(PH|PHS|PHA|PHASE|VELOCITY){_IMAGE}|(?!({'|'.join(NO_PHASE)})_)[A-Z0-9]+_PHASE",
        "real part": rf"REAL{_IMAGE}",
        "imaginary part": rf"IMAG(INARY)?{_IMAGE}",
    }.items()
}
_TYPES = {
    **{kind: rf"(SW_)?{_LETTERS[kind]}(_[A-Z0-9_]+)?|{words}" for kind, words in _WORDS.items()},
    "map": (
        r"E?ADC|E?ADC_.*|(COL|COLOR_)?FA|TENSOR|(.*_)?MAP|FIELDMAP|R?(REL)?(C?CBV|CBF|MTT|TTP)|PBP|KTRANS|T_?TEST|R2\*?|"
        r"FAT_FRACTION|FF|TEMPERATURE|STIFFNESS|ELASTOGRAM"
    ),
    "mask": r"MASK|SEGMENTATION|LABEL_?MAP",
    "localizer": r"LOCALIZER|SCOUT|SURVEY",
    "projection": r"MIP|MINIP|MNIP|MAX_IP|MIN_IP|PROJECTION_IMAGE|VRT|SSD|VOLREN|VOLUME_RENDERING",
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
    return _match_first(_TYPES, [word.replace(" ", "_") for word in words])


def identify_part(words: Sequence[str]) -> str | None:
    """The part of a complex image that whole words say, such as the last words of a file's name.

    Args:
        words: words in capitals. Those of several words are joined by "_", such as "PHASE_MAP".

    Returns:
        "phase image", "real part" or "imaginary part"; None if no word says one of these.
    """
    return _match_first(_WORDS, words)


def is_magnitude(words: Sequence[str]) -> bool:
    """Whether a word of an ImageType, in capitals, says that the image is a magnitude image."""
    return any(re.fullmatch(_MAGNITUDE, word) for word in words)


def _match_first(patterns: dict[str, str], words: Sequence[str]) -> str | None:
    return next(
        (kind for kind, pattern in patterns.items() if any(re.fullmatch(pattern, word) for word in words)), None
    )
