"""Kinds of images by ImageType, in DICOM or in a sidecar JSON. Imports no other package."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TYPES = {
    "phase image": r"P|PHASE|PHASE_(MAP|IMAGE)|VELOCITY|VELOCITY_(MAP|IMAGE)|P_(FFE|SE|IR|TFE|PCA|MIXED)",
    "real part": r"R|REAL|R_(FFE|SE|IR|TFE|PCA|MIXED)",
    "imaginary part": r"I|IMAGINARY|I_(FFE|SE|IR|TFE|PCA|MIXED)",
    "map": (
        r"E?ADC|E?ADC_.*|(COL|COLOR_)?FA|TENSOR|(.*_)?MAP|FIELDMAP|R?(REL)?(C?CBV|CBF|MTT|TTP)|PBP|KTRANS|T_?TEST|R2\*?|"
        r"FAT_FRACTION|FF|TEMPERATURE|STIFFNESS|ELASTOGRAM"
    ),
    "mask": r"MASK|SEGMENTATION|LABEL_?MAP",
    "localizer": r"LOCALIZER|SCOUT|SURVEY",
    "projection": r"MIP|MINIP|MNIP|MAX_IP|MIN_IP|PROJECTION_IMAGE|VRT|SSD|VOLREN|VOLUME_RENDERING",
}


def kind_by_type(words: Sequence[str]) -> str | None:
    """The kind of an image that is not a magnitude image.

    Args:
        words: words of its ImageType, in capitals.

    Returns:
        "phase image", "real part", "imaginary part", "map", "mask", "localizer" or "projection"; None if no word
        shows one of these.
    """
    for found, pattern in _TYPES.items():
        if any(re.fullmatch(pattern, word.replace(" ", "_")) for word in words):
            return found
    return None
