"""The files of weights, and the overlays that say what they are."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"loading": ["load_weights"], "saving": ["average_weights"]}
)
