"""Pieces of work in parallel on the cores of a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from .memory import measure_free_memory
from .threads import use_one_thread

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def run_in_parallel(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], device: torch.device, size: int
) -> Iterator[Result]:
    """Apply ``work`` to each piece, and yield the results in order. On a CPU several pieces run in parallel threads.

    Each operator then has one thread, so results are equal to the bit for any number of threads. This is faster than
    several threads for each operator, which wait for each other. On a GPU the pieces run one after another.

    Args:
        work: function of a piece, called in any thread with the gradient mode of the caller.
        pieces: the pieces, taken in order and a few ahead of the results.
        device: device of the work.
        size: memory of a piece in bytes. Pieces that run at once use at most half of the free memory.
    """
    if device.type != "cpu":
        # Autocast keeps its cast weights until the outermost context ends: one around all pieces casts them once.
        with torch.autocast(device.type, enabled=torch.is_autocast_enabled(device.type)):
            yield from map(work, pieces)
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return work(piece)

    count = int(min(torch.get_num_threads(), max(measure_free_memory(device) / 2 / size, 1)))
    with use_one_thread():
        if count == 1:
            yield from map(work, pieces)
            return
        pool, waiting = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)), deque[Future]()
        try:
            for piece in pieces:
                waiting.append(pool.submit(run, piece))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
