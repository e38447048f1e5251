"""How far a piece of work is: told where it is done, heard where it is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_listener: ContextVar[Callable[[float], Any]] = ContextVar("listener", default=lambda share: None)


def report(share: float) -> None:
    """Tell who listens that this share of the work, 0 to 1, is done; without a listener it does nothing."""
    _listener.get()(share)


@contextmanager
def listening(listener: Callable[[float], Any]) -> Iterator[None]:
    """Call ``listener`` with each share that is reported within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part(index: int, count: int) -> Iterator[None]:
    """Take what is reported within the block as shares of part ``index``, from 0, of ``count`` equal ones."""
    whole = _listener.get()
    with listening(lambda share: whole((index + share) / count)):
        yield
    whole((index + 1) / count)


def bar(total: int, unit: str) -> tqdm:
    """A bar that is advanced by fractions, in a terminal; in a file or a pipe, and in all but one process, none."""
    return tqdm(
        total=total,
        unit=unit,
        bar_format="{percentage:3.0f}%|{bar:30}| {n:.1f} of {total} {unit} [{elapsed}<{remaining}]{postfix}",
        smoothing=0,
        leave=False,
        dynamic_ncols=True,
        disable=True if int(os.environ.get("RANK", 0)) else None,
    )


@contextmanager
def shown(total: int, unit: str) -> Iterator[None]:
    """Show what is reported within the block as a :func:`bar` over ``total`` units."""
    with bar(total, unit) as line, listening(lambda share: line.update(total * share - line.n)):
        yield


def duration(seconds: float) -> str:
    """A length of time in the units that people would use, two at most: "45 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(hours + minutes / 60), 24)
    return f"{days} d {hours} h"
