"""``python -m common remember``: what inference does with weights unless it is told otherwise, kept in their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..handlers.checkpoint import save_atomically
from ..io.files import load_state, read_about


def remember(checkpoint: str, **defaults: Any) -> None:
    """Write values into a file of weights, for keys that a bundle's inference.json takes from there.

    Those are the keys that it sets to "$remembered(...)" and that are no setting of the training: for example
    --highest_disagreement 0.0442, or --uncertainty_scale "[1.4,0.002]". The weights themselves stay as they are.

    Args:
        checkpoint: the weights, a .pt file that a training of a bundle wrote.
        defaults: values by key.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when no value is given, the file does not say what it is, or a key is a setting of its training.
    """
    if not defaults:
        raise ValueError("no value is given, expected at least one, for example --highest_disagreement 0.05.")
    state, about = load_state(Path(checkpoint), "cpu"), read_about(checkpoint)
    if about is None:
        raise ValueError(f"{checkpoint}: the weights do not say what they are; give inference the values.")
    settings = [key for key in defaults if key in about["settings"]]
    if settings:
        raise ValueError(
            f"{checkpoint}: {', '.join(settings)} {'is' if len(settings) == 1 else 'are'} as in the training, and "
            "cannot be changed afterwards; train anew."
        )
    about["defaults"].update(defaults)
    save_atomically(state, Path(checkpoint), about)
    print(f"{checkpoint} remembers " + ", ".join(f"{key} {value}" for key, value in defaults.items()))
