"""The start of a run of a config."""

from __future__ import annotations

import torch
from monai.utils import set_determinism

from .override_checks import check, check_device
from .runtime import threads
from .runtime.distributed import join_training


def start(device: torch.device | str, seed: int | None = None) -> None:
    """Check the command line and the device, set the number of threads, and seed the random generators.

    It is the first entry of a config's ``initialize``. A training, which has a seed, connects torchrun's processes.

    Args:
        device: the device of the run.
        seed: seed of the initial weights and of all random draws; None for a run without random draws.

    Raises:
        ValueError: as :func:`common.override_checks.check` and :func:`common.runtime.distributed.join_training`; or
            when the device does not exist.
    """
    check()
    check_device(device)
    if torch.device(device).type == "cpu":
        threads.settle()
    if seed is not None:
        join_training(device)
        set_determinism(seed)
