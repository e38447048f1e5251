"""A quicker start: what MONAI loads at its import, and inference never uses, is left out."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType
from typing import Any

# Optional to MONAI, which does without any that is missing.
_UNUSED = ("matplotlib", "pandas", "requests", "scipy.signal", "skimage", "sklearn", "tensorboard", "tifffile")
# Ignite takes from it a class that states of training may be of, and it loads sympy and most of torch.distributed.
_OPTIMIZERS = "torch.distributed.optim"


class _Unused(ModuleType):
    """Offers a class by any name, of which there are no objects."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_monai() -> None:
    """Import MONAI without packages that are optional to it, in a process that is for inference alone.

    To MONAI and Ignite these are missing from then on; everybody else imports them as ever. A process that has imported
    MONAI already is left as it is.
    """
    if "monai" in sys.modules:
        return
    collects = gc.isenabled()
    gc.disable()  # modules stay: to look for garbage among them, again and again, takes a third of the time
    importlib.import_module("torch")
    hidden: dict[str, Any] = {**dict.fromkeys(_UNUSED), _OPTIMIZERS: _Unused(_OPTIMIZERS)}
    hidden = {name: there for name, there in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # of None Python says that there is no such module
    try:
        importlib.import_module("monai.bundle")
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()  # nor is it looked for among them later
        if collects:
            gc.enable()
