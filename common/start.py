"""How a run of a config begins."""

from __future__ import annotations

import torch
from monai.utils import set_determinism

from .override_checks import check, check_device
from .runtime import threads


def start(device: torch.device | str, seed: int | None = None) -> None:
    """Check the command line and the device, settle the number of threads, and seed what is random.

    It is the first entry of a config's ``initialize``.

    Args:
        device: of the run.
        seed: of the networks' first weights and all that is drawn at random; None for a run that draws nothing.

    Raises:
        ValueError: as :func:`common.override_checks.check`; or when the device is not there.
    """
    check()
    check_device(device)
    if torch.device(device).type == "cpu":
        threads.settle()
    if seed is not None:
        set_determinism(seed)


def require(condition: bool, message: str) -> None:
    """Refuse a run whose config contradicts itself, in ``initialize`` of the overlay that would be misused.

    Args:
        condition: that must hold.
        message: of the error where it does not.

    Raises:
        ValueError: when it does not.
    """
    if not condition:
        raise ValueError(message)
