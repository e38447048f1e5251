"""Memory: keep freed memory in the process, and find out how much is free."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import nn

_Network = TypeVar("_Network", bound=nn.Module)
# Constants of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for later ones, instead of returning it to the kernel.

    Otherwise glibc maps every block above 32 MiB again, and the kernel clears it page by page. This took half of a
    network's time for planes of 1024x1024 on a CPU. The process now keeps the largest amount of memory that it ever
    needed. Other C libraries are not changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
    mallopt(_ARENA_MAX, 1)  # otherwise threads have own heaps of at most 64 MiB, and map larger blocks


def to_channels_last(network: _Network, device: torch.device | str) -> _Network:
    """Move a network to a device; its 2-D convolutions get the channels-last layout, as slabs have."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def move_to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Copy a tensor of main memory to a device; on a GPU without a wait, through pinned memory."""
    device = torch.device(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def count_pieces_at_once(device: torch.device, size: int) -> int:
    """Number of pieces of work for one operator call.

    Args:
        device: device of the work.
        size: memory of a piece on the device, in bytes.

    Returns:
        On a GPU the number that fits into its free memory, from 1 to 32, which keep it busy. On a CPU 1, since more is
        no faster.
    """
    return 1 if device.type != "cuda" else int(min(max(measure_free_memory(device) // size, 1), 32))


def check_memory(
    size: Sequence[int], copies: float, device: torch.device, what: str, advice: Callable[[float], str]
) -> None:
    """Refuse a volume that needs more than the free memory.

    Args:
        size: of the volume.
        copies: how many of it, in float32, are held at once.
        device: of the volume.
        what: the volume, for the message.
        advice: function of needed over free memory that says what to do.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the process keeps is free too, see keep_freed_memory
    needed, free = 4.0 * math.prod(size) * copies, measure_free_memory(device)
    if needed > free:
        raise ValueError(
            f"{what} of {' x '.join(map(str, size))} voxels takes at least {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free; {advice(needed / max(free, 1))}."
        )


def measure_free_memory(device: torch.device) -> float:
    """Free memory of a device in bytes; of main memory, what the process's control group leaves."""
    if device.type == "cuda":
        # Memory that torch has reserved, but no tensor uses, is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return min(psutil.virtual_memory().available, _measure_group_limit())


def _measure_group_limit() -> float:
    """Bytes left in the process's control group, for example of a container or a Slurm job; infinite without one."""
    try:
        group_path = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        return math.inf
    left = math.inf
    group = Path("/sys/fs/cgroup", group_path)
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # the file holds "max" if there is no limit
            used = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["anon"]
            left = min(left, int((folder / "memory.max").read_text()) - int(used))
    return left
