"""Memory: what the C library does with what tensors give back, and how much of a GPU's is free."""

from __future__ import annotations

import contextlib
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
    return min(_numbers(Path("/proc/meminfo")).get("MemAvailable:", math.inf) * 1024, _left_to_group())


def _left_to_group() -> float:
    """Bytes that the process's control group, as that of a container or a Slurm job, leaves it."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        return math.inf
    left = math.inf
    group = Path("/sys/fs/cgroup", own)
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # without a limit it says max
            left = min(left, int((folder / "memory.max").read_text()) - _numbers(folder / "memory.stat")["anon"])
    return left


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line of a file of the kernel, by the word before it; none of a file that is missing."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1}
