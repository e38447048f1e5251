"""Processes that share the scans of a batch."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ..runtime.distributed import get_rank


def connect_processes() -> None:
    """Connect the processes if there are several and they are not yet connected."""
    if get_rank()[1] > 1 and not dist.is_initialized():
        # One process may finish its scans days before another.
        dist.init_process_group("gloo", timeout=timedelta(days=30))
        # If a scan failed, every process ends with an error. torchrun then kills the others before they report theirs.
        atexit.register(_disconnect)


def _disconnect() -> None:
    with contextlib.suppress(RuntimeError):
        dist.monitored_barrier(timeout=timedelta(minutes=1))
    dist.destroy_process_group()


def gather_items(items: Sequence[Any]) -> list[Any]:
    """Gather the items of all processes, in their order and without duplicates. Waits for the last process.

    Args:
        items: items of this process; they must be picklable and hashable.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(items)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(items))
    return list(dict.fromkeys(item for process_items in everyone for item in process_items))
