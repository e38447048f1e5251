"""Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch.distributed as dist


@contextlib.contextmanager
def handle_signals(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle signals, unless they are ignored.

    Args:
        numbers: the signals.
        handler: the function.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    # A shell ignores Ctrl-C for background jobs, nohup SIGHUP; None is a handler that was not set by Python.
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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

    def interrupt(number: int, frame: FrameType | None) -> None:
        if engine.interrupted:
            raise KeyboardInterrupt
        engine.interrupted = True
        os.write(2, b"\nstopping after this iteration; press Ctrl-C again to stop at once\n")

    with handle_signals((signal.SIGINT, signal.SIGTERM), interrupt):
        yield
