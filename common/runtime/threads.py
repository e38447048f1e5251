"""Choose the number of CPU threads if the environment does not set it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

_SAID = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "GOMP_SPINCOUNT")
_REPEATS = 6
_SLOWER = 1.5  # times the duration with one thread; above it, threads count as slower


def restore_threads(threads: int) -> None:
    """Use as many threads as an interrupted run, for the same rounding, unless the environment sets their number."""
    if not any(name in os.environ for name in _SAID):
        torch.set_num_threads(min(threads, os.cpu_count() or 1))


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Compute with one thread within the block, and in threads that start in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choose_threads() -> None:
    """Compute with fewer threads when other work on the machine makes all of them slower than one.

    OpenMP's threads spin while they wait for each other. If other work takes a core, one thread waits for the core and
    all others wait for that thread. Work of one second with one thread then takes ten. The remedy,
    ``OMP_WAIT_POLICY=passive``, must be set before torch is imported, which is too late here. So a convolution is timed
    with one thread, then with all, with half of them and so on, until it takes at most 1.5 times as long as with one.
    This takes tens of milliseconds, because a trial ends when it is too slow.

    Nothing is done if the environment has one of ``OMP_NUM_THREADS``, ``OMP_WAIT_POLICY``, ``MKL_NUM_THREADS`` and
    ``GOMP_SPINCOUNT``.
    """
    most = torch.get_num_threads()
    if most == 1 or any(name in os.environ for name in _SAID):
        return
    limit = _SLOWER * _measure_seconds(1, float("inf"))
    threads = most
    while threads > 1 and _measure_seconds(threads, limit) > limit:
        threads //= 2
    torch.set_num_threads(threads)
    if threads < most:
        print(
            f"{threads} of {most} threads compute, because with the other work on this machine {most} are slower "
            "than one. To use all, set OMP_WAIT_POLICY=passive in the environment.",
            flush=True,
        )


def _measure_seconds(threads: int, limit: float) -> float:
    """Seconds for some convolutions as in networks of slices; it stops shortly after ``limit`` seconds."""
    torch.set_num_threads(threads)
    image, weight = torch.ones(1, 32, 64, 64), torch.ones(32, 32, 3, 3)
    with torch.no_grad():
        F.conv2d(image, weight, padding=1)  # the first call prepares the kernel and starts the threads
        start = time.perf_counter()
        for _ in range(_REPEATS):
            F.conv2d(image, weight, padding=1)
            if time.perf_counter() - start > limit:
                break
        return time.perf_counter() - start
