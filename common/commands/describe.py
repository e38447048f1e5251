"""``python -m common describe``: what weights say they are."""

from __future__ import annotations

import json
from pathlib import Path

from ..io.files import read_about


def describe(file: str) -> None:
    """Print what weights say they are, a line a key: bundle, version, network, settings, defaults, SHA-256, iteration.

    Settings are what evaluation and inference must agree with, defaults what they do unless they are told otherwise.

    Args:
        file: of the weights, .pt, .ts or .onnx, for example bundles/udean/models/model.pt.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it does not say what it is, or what it says cannot be read.
    """
    path = Path(str(file))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; name one of weights.")
    about = read_about(path)
    if about is None:
        raise ValueError(
            f"{path}: expected weights that say what they are; these are of an earlier version, or none. Next to the "
            "state of a training its weights are model_last.pt."
        )
    rows = []
    for key, value in about.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{key} {name}".strip(), v if isinstance(v, str) else json.dumps(v)) for name, v in inner]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
