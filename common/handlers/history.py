"""The history of a training on disk, and its progress bar."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from tqdm.contrib.logging import logging_redirect_tqdm

from ..io.files import format_json
from ..io.writing import write_atomically
from ..runtime.progress import make_bar


class LossHistory:
    """Writes every loss term of every iteration, and validation metrics, as JSON lines, and draws them at the end.

    A line is ``{"epoch": 1, "iteration": 1, "<player>/<term>": 0.1, ...}``; after a validation also
    ``{"epoch": 1, "iteration": 100, "validation/<metric>": 30.1}``. A resumed run first drops the lines of iterations
    that it repeats. A progress bar shows the iterations of all epochs. When the training completes, the curves are
    drawn next to the file: ``history.jsonl`` becomes ``losses.png``, ``history_2.jsonl`` becomes ``losses_2.png``.

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
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, lambda evaluator: self._write_validation(engine))
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._close_and_raise)
        self.file: Any = None
        self.bar: Any = None

    def _trim(self, engine: Any) -> None:
        if self.bar is None:
            self.lines = ExitStack()
            self.lines.enter_context(logging_redirect_tqdm())  # above the bar, not within it
            total = engine.state.max_epochs * engine.state.epoch_length
            self.bar = make_bar(what="training", total=total, initial=engine.state.iteration)
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
        state = engine.state
        terms = {name: value for name, value in state.output[0].items() if name != "loss"}  # the sum of the totals
        self.file.write(format_json({"epoch": state.epoch, "iteration": state.iteration, **terms}) + "\n")
        self.bar.update()

    def _write_validation(self, engine: Engine) -> None:
        if self.file is not None:
            metrics = {f"validation/{k}": float(v) for k, v in self.evaluator.state.metrics.items()}
            self.bar.set_postfix(self.evaluator.state.metrics)
            line = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, **metrics}
            self.file.write(format_json(line) + "\n")

    def _finish(self, engine: Engine) -> None:
        # A finished run that is resumed has written nothing, and has its curves already.
        if self.file is not None:
            from ..reports.curves import draw_loss_curves

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
