"""The start of a run of a config."""

from __future__ import annotations

import torch
from monai.utils import set_determinism

from .override_checks import check, check_device
from .runtime import threads


def start(device: torch.device | str, seed: int | None = None) -> None:
    """Check the command line and the device, set the number of threads, and seed the random generators.

    It is the first entry of a config's ``initialize``.

    Args:
        device: the device of the run.
        seed: seed of the initial weights and of all random draws; None for a run without random draws.

    Raises:
        ValueError: as :func:`common.override_checks.check`; or when the device does not exist.
    """
    check()
    check_device(device)
    if torch.device(device).type == "cpu":
        threads.settle()
    if seed is not None:
        set_determinism(seed)


def require(condition: bool, message: str) -> None:
    """Refuse a run whose config contradicts itself. Overlays call it in ``initialize``.

    Args:
        condition: must be true.
        message: the error message.

    Raises:
        ValueError: when the condition is false.
    """
    if not condition:
        raise ValueError(message)
