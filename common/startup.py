"""A quicker start: what MONAI loads at its import, and inference never uses, is left out."""

from __future__ import annotations

import importlib
import sys

# Optional to MONAI, which does without any that is missing.
_UNUSED = ("matplotlib", "pandas", "skimage", "sklearn")


def import_monai() -> None:
    """Import MONAI without packages that are optional to it, in a process that is for inference alone.

    To MONAI these are missing from then on; everybody else imports them as ever. A process that has imported MONAI
    already is left as it is.
    """
    if "monai" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None, which Python takes for a module that is not there
    try:
        importlib.import_module("monai.bundle")
    finally:
        for name in hidden:
            del sys.modules[name]
