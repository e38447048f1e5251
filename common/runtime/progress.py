"""Progress bars of work, and durations in words."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_SECONDS = 20  # until the first line where there is no terminal, and at least between lines
_LEAST = 5  # %; before, the rest is hardly known
_LINE = "{desc}{percentage:.0f} %, {elapsed} done, {remaining} left"


class _Part(NamedTuple):
    """The present part of a bar."""

    bar: tqdm
    start: float
    length: float
    began: float  # of its item, by time.monotonic

    def cut(self, index: int, costs: Sequence[float]) -> _Part:
        unit = self.length / sum(costs)
        return self._replace(start=self.start + unit * sum(costs[:index]), length=unit * costs[index])

    def advance(self, share: float) -> None:
        # The bar never goes back.
        self.bar.update(max(self.start + share * self.length - self.bar.n, 0))


_part: ContextVar[_Part | None] = ContextVar("part", default=None)
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


class _Lines:
    """What a bar is written to where there is no terminal: its states from 5 % on become lines, each a third later."""

    def __init__(self) -> None:
        self.began, self.due = time.monotonic(), float(_SECONDS)

    def write(self, text: str) -> None:
        passed = time.monotonic() - self.began
        share = re.search(r"(\d+) %", text := text.strip())
        if share and int(share[1]) >= _LEAST and passed >= self.due:
            print(text, file=sys.stderr, flush=True)
            self.due = passed * 4 / 3

    def flush(self) -> None:
        """Nothing, because each line is flushed."""


def make_bar(items: Iterable | None = None, what: str = "", **options: Any) -> tqdm:
    """A bar of tqdm that goes at its end. It is shown by the first process, and not if silenced.

    Where there is no terminal, such as in a log, lines say how much of long work is done, and what time is left.

    Args:
        items: what is iterated, or None for a bar that :func:`fill_bar` moves.
        what: the work in a few words.
        options: further ones of ``tqdm``.
    """
    hidden = _hidden.get() or int(os.environ.get("RANK", 0)) > 0
    # By tqdm's default the rest would follow the last parts alone, and jump.
    options |= {"leave": False, "smoothing": 0, "disable": hidden}
    if sys.stderr.isatty():
        return tqdm(items, what, dynamic_ncols=True, **options)
    options |= {"delay": _SECONDS, "mininterval": _SECONDS, "miniters": 0, "bar_format": _LINE}
    return tqdm(items, what and f"{what}: ", file=_Lines(), **options)


@contextmanager
def fill_bar(bar: tqdm, index: int) -> Iterator[None]:
    """Let the block do item ``index``, from 0, of a bar; what it reports moves the bar to the next item."""
    with _begin(_Part(bar, index, 1, time.monotonic())):
        yield


@contextmanager
def begin_part(index: int, costs: int | Sequence[float]) -> Iterator[None]:
    """Let the block be part ``index``, from 0, of the parts of the present part of the bar, if there is one.

    Args:
        index: of the part.
        costs: what each part costs, such as seconds; or the number of parts, if they cost the same.
    """
    part = _part.get()
    with _begin(None if part is None else part.cut(index, [1] * costs if isinstance(costs, int) else costs)):
        yield


@contextmanager
def join_items(done: int, count: int) -> Iterator[None]:
    """Let the block work on ``count`` items of the bar as one, the present item and ``done`` before it included."""
    part = _part.get()
    if part is not None:
        start = max(part.start - done, 0)
        part = part._replace(start=start, length=min(count, part.bar.total - start))
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def track(items: Sequence[Item], growth: float = 1.0) -> Iterator[Item]:
    """Yield items; the work on each is a part of the present one, ``growth`` times as much as on the item before."""
    part, costs = _part.get(), [growth**i for i in range(len(items))]
    for i, item in enumerate(items):
        if part is not None:
            # Not a context, which would be left late where a loop breaks off.
            _part.set(present := part.cut(i, costs))
        yield item
        if part is not None:
            present.advance(1)
            _part.set(part)


def report_progress(share: float) -> None:
    """Report which share of the present part is done, 0 to 1."""
    if (part := _part.get()) is not None:
        part.advance(share)


def move_bar(costs: Sequence[float]) -> None:
    """Report that the first of the parts of the present part is done; see :func:`begin_part`."""
    report_progress(costs[0] / sum(costs))


def get_elapsed() -> float:
    """Seconds since the work on the present item of the bar began; 0 if there is no bar."""
    return 0.0 if (part := _part.get()) is None else time.monotonic() - part.began


def hold_bar() -> AbstractContextManager[None]:
    """Let the block move no bar."""
    return _begin(None)


@contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """Let the block print nothing but warnings, and show no bars, if ``quiet``."""
    token = _hidden.set(quiet)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if quiet else sys.stdout):
            yield
    finally:
        _hidden.reset(token)


@contextmanager
def _begin(part: _Part | None) -> Iterator[None]:
    token = _part.set(part)
    try:
        yield
    finally:
        report_progress(1)
        _part.reset(token)


def measure_time(work: Callable[[], object], prepare: bool = True) -> float:
    """Seconds of some work, which moves no bar; short work is done once before, which prepares it."""
    with hold_bar():
        if prepare:
            work()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


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


def format_estimate(least: float, most: float) -> str:
    """How long work will take on this machine, in seconds at least and at most, in words."""
    times = dict.fromkeys(format_duration(max(seconds, 1)) for seconds in (least, most))
    return f"{' to '.join(times)} on this machine" + ", as fine-tuning may stop early" * (len(times) > 1)
