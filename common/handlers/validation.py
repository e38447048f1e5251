"""Validation of a training."""

from __future__ import annotations

import os
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler


class ValidationWithInitial(ValidationHandler):
    """MONAI's ``ValidationHandler``, which also validates the weights that a training starts from.

    So the initial weights are kept if no epoch is better. The last epoch is always validated, so that a training
    writes weights. The evaluator finds the iteration of the training as ``engine.state.trained``, and handlers
    of the training find the metrics as ``engine.state.metrics``. MONAI's ``exec_at_start`` is not used: it runs before
    a state is restored, and validates twice.

    Args:
        initial: file of the initial weights; None if a training starts from nothing.
        options: of ``monai.handlers.ValidationHandler``.
    """

    def __init__(self, initial: str | os.PathLike | None, **options: Any) -> None:
        super().__init__(**options)
        self.initial = initial

    def attach(self, engine: Engine) -> None:
        """Validate after epochs, and before the first if there are initial weights."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_at_end)
        if self.initial is not None:
            engine.add_event_handler(Events.EPOCH_STARTED(once=1), self._validate_initial)

    def __call__(self, engine: Engine) -> None:
        """Validate."""
        self.validator.state.trained = engine.state.iteration  # type: ignore[union-attr]
        # The loader of the volumes draws a number. What a training draws later must not depend on when its time was up.
        within_epoch = engine.state.iteration % engine.state.epoch_length != 0  # type: ignore[operator]
        with torch.random.fork_rng(devices=[], enabled=within_epoch):
            super().__call__(engine)
        engine.state.metrics.update(self.validator.state.metrics)  # type: ignore[union-attr]

    def _validate_at_end(self, engine: Engine) -> None:
        if engine.state.epoch == engine.state.max_epochs and engine.state.epoch % self.interval:
            self(engine)

    def _validate_initial(self, engine: Engine) -> None:
        if engine.state.iteration == 0:  # not resumed within the epoch
            self(engine)
