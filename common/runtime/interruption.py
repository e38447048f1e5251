"""Ctrl-C and SIGTERM in a training."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist


@contextlib.contextmanager
def interrupt_after_iteration(engine: Any) -> Iterator[None]:
    """After Ctrl-C or SIGTERM set ``engine.interrupted``, so that it can save a state; after a second, end at once.

    Several processes cannot agree on the iteration, so each ends at once.

    Args:
        engine: with the attribute ``interrupted``.
    """
    if dist.is_initialized() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell ignores Ctrl-C for background jobs; None is a handler that was not set by Python.
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}

    def interrupt(number: int, frame: object) -> None:
        if engine.interrupted:
            raise KeyboardInterrupt
        engine.interrupted = True
        os.write(2, b"\nstopping after this iteration; press Ctrl-C again to stop at once\n")

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
