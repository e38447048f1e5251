"""The history of a training on disk, and a forecast of its length."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..io.files import format_json
from ..io.writing import write_atomically
from ..runtime.late_losses import LossEvents
from ..runtime.progress import ProgressBar, format_duration

_WARM_UP = 5  # iterations
_BEFORE, _MEASURED = (_WARM_UP, 30.0), (20, 60.0)  # iterations, seconds; the limit that is reached first


class LossHistory:
    """Writes every loss term of every iteration, and validation metrics, as JSON lines, and draws them at the end.

    A line is ``{"epoch": 1, "iteration": 1, "<player>/<term>": 0.1, ...}``; after a validation also
    ``{"epoch": 1, "iteration": 100, "validation/<metric>": 30.1}``. A resumed run first drops the lines of iterations
    that it repeats. A :class:`~common.runtime.progress.ProgressBar` is shown. When the training completes, the curves
    are drawn next to the file: ``history.jsonl`` becomes ``losses.png``, ``history_2.jsonl`` becomes ``losses_2.png``.

    Args:
        path: of the file.
        evaluator: whose metrics are written each time that it has run, or None.
    """

    def __init__(self, path: str | os.PathLike, evaluator: Engine | None = None) -> None:
        self.path = Path(path)
        self.evaluator: Any = evaluator

    def attach(self, engine: Engine) -> None:
        """Write and show the engine's iterations, in process 0 only."""
        if dist.is_initialized() and dist.get_rank() != 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._trim)
        engine.add_event_handler(LossEvents.LOSSES_READ, self._write)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, lambda evaluator: self._write_validation(engine))
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._close_and_raise)
        self.file: Any = None
        self.bar: Any = None

    def _trim(self, engine: Engine) -> None:
        if self.bar is None:
            self.lines = ExitStack()
            self.lines.enter_context(logging_redirect_tqdm())  # above the bar, not within it
            self.bar, self.metrics, self.done = ProgressBar("training"), "", 0
        if self.file is not None:
            return
        lines = []
        if engine.state.iteration > 0 and self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    if json.loads(line)["iteration"] <= engine.state.iteration:
                        lines.append(line + "\n")
                except ValueError:
                    break  # the run was killed while it wrote this line
        with write_atomically(self.path) as temporary:
            temporary.write_text("".join(lines))
        # Line by line, so that a killed run keeps every line up to its checkpoint.
        self.file = self.path.open("a", buffering=1)

    def _write(self, engine: Any) -> None:
        if self.file is None:
            return  # an iteration outside of a run
        state, iteration = engine.state, engine.state.losses_of
        terms = {name: value for name, value in state.output[0].items() if name != "loss"}  # the sum of the totals
        self.file.write(format_json({"epoch": state.epoch, "iteration": iteration, **terms}) + "\n")
        self.done += 1
        if self.done == _WARM_UP:
            self.since = time.perf_counter()
        total = state.max_epochs * state.epoch_length
        self.bar.what = f"training, iteration {iteration} of {total}{self.metrics}"
        timed = self.done - _WARM_UP
        pace = (time.perf_counter() - self.since) / timed if timed > 0 else math.nan
        self.bar.show_seconds_left(pace * (total - iteration))

    def _write_validation(self, engine: Engine) -> None:
        if self.file is not None:
            metrics = {f"validation/{k}": float(v) for k, v in self.evaluator.state.metrics.items()}
            self.metrics = "".join(f", {k.removeprefix('validation/')} {v:.4g}" for k, v in metrics.items())
            line = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, **metrics}
            self.file.write(format_json(line) + "\n")

    def _finish(self, engine: Engine) -> None:
        # A finished run that is resumed has written nothing, and has its curves already.
        if self.file is not None:
            from ..reports import (
                draw_loss_curves,
            )  # here, because matplotlib takes long to load, and inference needs none

            self._close()
            draw_loss_curves(self.path.with_name(self.path.stem.replace("history", "losses") + ".png"), self.path)

    def _close_and_raise(self, engine: Engine, error: BaseException) -> None:
        self._close()
        raise error

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.lines.close()
        if self.file is not None:
            self.file.close()
        self.file = self.bar = None


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
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure_pace)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.STARTED, self._start_validation)
            self.evaluator.add_event_handler(Events.COMPLETED, lambda evaluator: self._end_validation(engine))

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()

    def _measure_pace(self, engine: Engine) -> None:
        self.done += 1
        now = time.monotonic()
        seconds = now - self.started - self.validating
        iterations = self.done - self.warm
        most = _MEASURED if self.warm else _BEFORE
        if self.pace is not None or (iterations < most[0] and seconds < most[1]):
            return
        if self.warm:
            self.pace = seconds / iterations
            self._print_forecast(engine)
        else:
            self.warm, self.started, self.validating = self.done, now, 0.0

    def _start_validation(self, evaluator: Engine) -> None:
        self.validation_started = time.monotonic()

    def _end_validation(self, engine: Engine) -> None:
        took = time.monotonic() - self.validation_started
        self.validating += took
        first, self.validation = self.validation is None, took
        if first and self.pace is not None:
            validations, left = self._estimate_rest(engine)
            more = f"; with {validations} more, {left} are left" if validations else ""
            tqdm.write(f"{self.name}: a validation takes {format_duration(took)}{more}.")

    def _estimate_rest(self, engine: Any) -> tuple[int, str]:
        """Return the number of validations left, and the total time if the time of a validation is known."""
        state = engine.state
        validations = state.max_epochs // self.interval - state.iteration // state.epoch_length // self.interval
        seconds = (state.max_epochs * state.epoch_length - state.iteration) * self.pace
        ends_itself = any(player.stop_below is not None for player in engine.players.values())
        left = format_duration(seconds + validations * (self.validation or 0.0))
        return validations, f"at most {left}" if ends_itself else left

    def _print_forecast(self, engine: Any) -> None:
        state = engine.state
        validations, left = self._estimate_rest(engine)
        iterations = state.max_epochs * state.epoch_length - state.iteration
        epoch = (state.epoch_length - state.iteration % state.epoch_length) * self.pace
        first = epoch if self.minutes is None else min(epoch, 60 * self.minutes)
        unmeasured = self.evaluator is not None and self.validation is None and validations
        unknown = f", and {validations} validation{'s' * (validations > 1)}" if unmeasured else ""
        tqdm.write(
            f"{self.name}: {iterations} iterations at {1 / self.pace:.3g} a second are left, {left}{unknown}. First "
            f"checkpoint in {format_duration(first)}, end of the epoch in {format_duration(epoch)}. Weights go to "
            f"{self.ckpt_dir}."
        )
