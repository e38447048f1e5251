"""How many threads compute on the CPU, where nobody has said it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

_SAID = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "GOMP_SPINCOUNT")
_REPEATS = 6
_SLOWER = 1.5  # times one thread: the least at which threads are taken to be in each other's way


def restore(threads: int) -> None:
    """Compute with as many threads as an interrupted run, for the same rounding, unless the environment says it."""
    if not any(name in os.environ for name in _SAID):
        torch.set_num_threads(min(threads, os.cpu_count() or 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread within the block, and in threads that begin there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def settle() -> None:
    """Compute with fewer threads when other work on the machine makes all of them slower than one.

    OpenMP's threads spin while they wait for each other. Beside other work one of them waits for a core, all others for
    it, and what one thread does in a second takes ten. The remedy, ``OMP_WAIT_POLICY=passive``, is read when torch is
    imported, which is too late for whoever starts after that. So a convolution is timed with one thread, then with all,
    with half as many and so on, until some are no slower than the one: tens of milliseconds, because a trial ends when
    it is too slow.

    Nothing is done where one of OpenMP's variables above says what is wanted.
    """
    most = torch.get_num_threads()
    if most == 1 or any(name in os.environ for name in _SAID):
        return
    limit = _SLOWER * _seconds(1, float("inf"))
    threads = most
    while threads > 1 and _seconds(threads, limit) > limit:
        threads //= 2
    torch.set_num_threads(threads)
    if threads < most:
        print(
            f"{threads} of {most} threads compute, because beside the other work on this machine {most} are slower "
            "than one. With OMP_WAIT_POLICY=passive in the environment all do.",
            flush=True,
        )


def _seconds(threads: int, limit: float) -> float:
    """Seconds for some convolutions of the size that networks of slices have; a little above the limit at most."""
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
