"""Memory: what the C library does with what tensors give back, and how much of a GPU's is free."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import torch

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next ones, instead of returning it to the kernel.

    glibc maps every block above 32 MiB anew, and the kernel clears it page by page, which took half of the time that a
    network needed for planes of 1024x1024 on a CPU. The process then holds on to the most memory that it ever needed.
    Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
    mallopt(_ARENA_MAX, 1)  # threads have heaps of at most 64 MiB of their own otherwise, and map what is larger


def pieces_at_once(device: torch.device, size: int, most: int = 32) -> int:
    """How many pieces of a piece of work an operator is to take at once.

    Args:
        device: where it is done.
        size: bytes that a piece takes there.
        most: pieces beyond which a GPU has enough to do.

    Returns:
        As many as fit into what is free of a GPU's memory, at least 1; 1 on a CPU, which is no faster with more.
    """
    return 1 if device.type != "cuda" else int(min(max(free_memory(device) // size, 1), most))


def free_memory(device: torch.device) -> float:
    """Bytes of a device's memory that are free; of main memory infinite on a system that does not say it as Linux."""
    if device.type == "cuda":
        # Of what torch holds of the memory, what no tensor is in is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
