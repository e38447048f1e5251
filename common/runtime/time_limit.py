"""The time that a training may take."""

from __future__ import annotations

import math
import time

import torch.distributed as dist

from .distributed import print_once, trains_alone


class TimeLimit:
    """Minutes of a training from its first iteration on, for all of its stages together.

    Args:
        minutes: more than 0; None for no limit.

    Raises:
        ValueError: if ``minutes`` is no number above 0.
    """

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and (isinstance(minutes, (bool, str)) or not minutes > 0):
            raise ValueError(f"minutes is {minutes!r}, expected a number above 0, or null for no limit.")
        self.minutes = minutes
        self._is_said = False
        self._ends = math.inf

    def start(self) -> None:
        """Begin to count, unless it is counting."""
        if self.minutes is not None and self._ends == math.inf:
            self._ends = time.monotonic() + 60 * self.minutes

    def is_over(self, place: str) -> bool:
        """Whether the time is up, in all processes by the clock of the first. The first time, a line says so.

        Args:
            place: in the training, for that line.
        """
        over = [time.monotonic() >= self._ends]
        if self.minutes is not None and not trains_alone():
            dist.broadcast_object_list(over)
        if over[0] and not self._is_said:
            print_once(f"{self.minutes:g} minutes are over {place}; the same command with --resume True goes on")
            self._is_said = True
        return over[0]
