"""A forecast of the length of a run."""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from tqdm import tqdm

from ..runtime.progress import duration

_WARM_UP, _MEASURED = (5, 30.0), (20, 60.0)  # iterations, seconds; the limit that is reached first


class Forecast:
    """Prints how long a run will take, when it saves, and where its weights go, once its pace is measured.

    The pace is measured over iterations 6 to 25 of this process, or over fewer if they are slow. A shorter run prints
    nothing. The first validation is measured too, and its time is printed then.

    Args:
        name: of the training.
        ckpt_dir: folder of its weights and states.
        minutes: between saves within an epoch, as for :class:`~common.handlers.ResumableState`.
        evaluator: of the validation, or None.
        interval: epochs between validations.
    """

    def __init__(
        self, name: str, ckpt_dir: str, minutes: float | None, evaluator: Engine | None = None, interval: int = 1
    ) -> None:
        self.name, self.ckpt_dir, self.minutes = name, ckpt_dir, minutes
        self.evaluator, self.interval = evaluator, interval

    def attach(self, engine: Engine) -> None:
        """Measure and speak in process 0 only."""
        if dist.is_initialized() and dist.get_rank() != 0:
            return
        self.done = self.warm = 0
        self.pace: float | Any = None
        self.validation: float | None = None
        self.validating = 0.0  # seconds since the measurement began
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.STARTED, self._validation_starts)
            self.evaluator.add_event_handler(Events.COMPLETED, lambda evaluator: self._validated(engine))

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()

    def _iteration(self, engine: Engine) -> None:
        self.done += 1
        now = time.monotonic()
        seconds = now - self.started - self.validating
        iterations = self.done - self.warm
        most = _MEASURED if self.warm else _WARM_UP
        if self.pace is not None or (iterations < most[0] and seconds < most[1]):
            return
        if self.warm:
            self.pace = seconds / iterations
            self._say(engine)
        else:
            self.warm, self.started, self.validating = self.done, now, 0.0

    def _validation_starts(self, evaluator: Engine) -> None:
        self.validation_started = time.monotonic()

    def _validated(self, engine: Engine) -> None:
        took = time.monotonic() - self.validation_started
        self.validating += took
        first, self.validation = self.validation is None, took
        if first and self.pace is not None:
            validations, left = self._left(engine)
            tqdm.write(f"{self.name}: a validation takes {duration(took)}; with {validations} more, {left} are left.")

    def _left(self, engine: Any) -> tuple[int, str]:
        """Return the number of validations left, and the total time if the time of a validation is known."""
        state = engine.state
        validations = state.max_epochs // self.interval - state.iteration // state.epoch_length // self.interval
        seconds = (state.max_epochs * state.epoch_length - state.iteration) * self.pace
        ends_itself = any(player.stop_below is not None for player in engine.players.values())
        left = duration(seconds + validations * (self.validation or 0.0))
        return validations, f"at most {left}" if ends_itself else left

    def _say(self, engine: Any) -> None:
        state = engine.state
        validations, left = self._left(engine)
        iterations = state.max_epochs * state.epoch_length - state.iteration
        epoch = (state.epoch_length - state.iteration % state.epoch_length) * self.pace
        first = epoch if self.minutes is None else min(epoch, 60 * self.minutes)
        unknown = f", and {validations} validations" if self.evaluator is not None and self.validation is None else ""
        tqdm.write(
            f"{self.name}: {iterations} iterations at {1 / self.pace:.3g} a second are left, {left}{unknown}. First "
            f"checkpoint in {duration(first)}, end of the epoch in {duration(epoch)}. Weights go to {self.ckpt_dir}."
        )
