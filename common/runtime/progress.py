"""Report the progress of work, estimate the time that is left, and show it."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

_EVERY = 30.0  # seconds between lines, where there is no terminal
_BEGUN = 0.03  # share of a step before its pace counts, because parallel pieces are reported together


@dataclass
class _Step:
    """The present step: its start, the listener for the seconds left, and time and share of its first report."""

    start_time: float
    listener: Callable[[float], Any]
    first: tuple[float, float] | None = None


_step: ContextVar[_Step] = ContextVar("step")
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


def _get_present() -> _Step:
    return _step.get(None) or _Step(0.0, lambda left: None)


def report_share(share: float) -> None:
    """Report to the listener which share of the present step is done, 0 to 1. Without a listener it does nothing.

    The time that is left follows from the pace since the step's first report. Work before it is done only once.
    """
    present, now = _get_present(), time.perf_counter()
    if present.first is None:
        present.first = now, share
    since, before = present.first
    if share >= 1:
        present.listener(0.0)
    elif share - before >= _BEGUN:
        present.listener((now - since) * (1 - share) / (share - before))


@contextmanager
def listen(listener: Callable[[float], Any]) -> Iterator[None]:
    """Make the block a step, and call ``listener`` with the seconds that are left at each report in it."""
    token = _step.set(_Step(time.perf_counter(), listener))
    try:
        yield
    finally:
        _step.reset(token)


@contextmanager
def begin_step(then: float = 0.0) -> Iterator[None]:
    """Make the block a step of the present one; ``then`` seconds of other work follow it."""
    tell = _get_present().listener
    with listen(lambda left: tell(left + then)):
        yield
    tell(then)


@contextmanager
def begin_part(index: int, count: int, growth: float = 1.0) -> Iterator[None]:
    """Make the block part ``index``, from 0, of ``count`` parts of the present step.

    Each part takes ``growth`` times as much work as the part before it.
    """
    present = _get_present()
    costs = [growth**i for i in range(count)]
    later = sum(costs[index + 1 :]) / sum(costs[: index + 1])

    def scale_seconds(left: float) -> None:
        present.listener(left + later * (time.perf_counter() - present.start_time + left))

    with listen(scale_seconds):
        yield
    scale_seconds(0.0)


@contextmanager
def hide_progress(hidden: bool = True) -> Iterator[None]:
    """Let no :class:`ProgressBar` that is made in the block show anything, if ``hidden``."""
    token = _hidden.set(hidden)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """Let the block print nothing but warnings, and show no progress, if ``quiet``."""
    with hide_progress(quiet), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if quiet else sys.stdout):
        yield


def is_hidden() -> bool:
    """Whether progress is hidden here."""
    return _hidden.get()


class ProgressBar:
    """Shows how much is done and how much time is left: a bar in a terminal, elsewhere a line every 30 seconds.

    Of several processes, only the first shows anything.

    Args:
        what: the work in a few words; it may change later.
    """

    def __init__(self, what: str = "") -> None:
        self.what = what
        self.start_time = self._last_printed = time.perf_counter()
        self._left, self._share = math.nan, 0.0
        first = int(os.environ.get("RANK", 0)) == 0 and not _hidden.get()
        form = "{percentage:3.0f}%|{bar:30}| {elapsed}{postfix}"
        self._bar = tqdm(
            total=1, bar_format=form, miniters=0, leave=False, dynamic_ncols=True, disable=None if first else True
        )
        self._closed = threading.Event()
        self._lines: threading.Thread | None = None
        if first and self._bar.disable:
            # A thread, because reading, registration and saving report nothing.
            self._lines = threading.Thread(target=self._print_line, daemon=True)
            self._lines.start()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show_seconds_left(self, left: float) -> None:
        """Show how many seconds are left; NaN if unknown."""
        self._last_printed, self._left = time.perf_counter(), left
        if not math.isnan(left):
            done = self._last_printed - self.start_time
            # The bar never goes back, though an estimate may.
            self._share = max(self._share, done / max(done + left, 1e-9))
        self._bar.set_postfix_str(f"{self.what}{self._format_time()}", refresh=False)
        self._bar.update(self._share - self._bar.n)

    def format_line(self) -> str:
        """A line with the work, its share done and the time that is left."""
        if left := self._format_time():
            return f"{self.what}: {min(math.floor(100 * self._share), 99)} % done{left}"
        return f"{self.what}: {format_duration(time.perf_counter() - self.start_time)} so far"

    def close(self) -> None:
        """Show nothing more."""
        self._closed.set()
        self._bar.close()
        if self._lines is not None:
            self._lines.join()

    def _format_time(self) -> str:
        left = self._left - (time.perf_counter() - self._last_printed)
        return "" if math.isnan(left) else f", about {format_duration(max(left, 1))} left"

    def _print_line(self) -> None:
        while not self._closed.wait(_EVERY):
            # One write, so that no other line comes in between.
            sys.stderr.write(self.format_line() + "\n")
            sys.stderr.flush()


@contextmanager
def show_progress(what: str) -> Iterator[None]:
    """Show the progress of the block by a :class:`ProgressBar`."""
    with ProgressBar(what) as bar, listen(bar.show_seconds_left):
        yield


def format_duration(seconds: float) -> str:
    """A duration in words, with at most two units: "45 s", "2 min 10 s", "12 min", "2 d 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    tens = round(seconds / 10)
    if tens < 60:
        return f"{tens // 6} min" + (f" {tens % 6}0 s" if tens % 6 else "")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(hours + minutes / 60), 24)
    return f"{days} d {hours} h"
