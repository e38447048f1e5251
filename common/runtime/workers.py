"""Pieces of work side by side on the cores of a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from .memory import free_memory
from .threads import one_thread

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], device: torch.device, size: int
) -> Iterator[Result]:
    """What a piece of work makes of each piece, in order; on a CPU several at once, a thread each.

    Each operator then has one thread, so results are the same to the bit for any number of threads. That is faster
    than several threads for each operator, which wait for each other. On a GPU the pieces come one after the other.

    Args:
        work: called in any thread, with the gradient mode of the caller.
        pieces: taken in order, a few ahead of the results.
        device: where the work is done.
        size: bytes that a piece takes there; no more pieces are in work than fit into half of the memory that is free.
    """
    if device.type != "cpu":
        yield from map(work, pieces)
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return work(piece)

    count = int(min(torch.get_num_threads(), max(free_memory(device) / 2 / size, 1)))
    with one_thread():
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
