"""What the benchmarks share: the command line, times, and measurements in processes of their own."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import fire
import torch


def command(main: Callable) -> None:
    """Run a benchmark with the arguments of the command line; what is wrong with them is said in a line."""
    try:
        fire.Fire(main)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def in_own_process(function: Callable, *args):
    """The result of a function that runs in a new process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
