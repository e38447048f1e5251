"""Losses that are read from the device after other work was queued."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import EventEnum


class LossEvents(EventEnum):
    """Events of an :class:`~common.engines.AlternatingTrainer`."""

    LOSSES_READ = "losses_read"
    """The losses of an iteration were read; ``engine.state.losses_of`` is the iteration."""


class LateLosses:
    """Losses of an iteration on their way from the device.

    Args:
        iteration: number of the iteration.
        names: of the losses.
        values: ``(number,)``, float32, on the device. They may be overwritten after this call.
    """

    def __init__(self, iteration: int, names: Sequence[str], values: torch.Tensor) -> None:
        self.iteration, self.names, self.values = iteration, names, values
        self._arrived: Any = None
        if values.device.type == "cuda":
            self.values = torch.empty(values.shape, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(values.device))

    def read(self) -> dict[str, float]:
        """Wait for the losses, and return them by name.

        Raises:
            FloatingPointError: if a loss is not finite; the message names the iteration and the losses.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        losses = dict(zip(self.names, self.values.tolist(), strict=True))
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            raise FloatingPointError(
                f"iteration {self.iteration}: not finite: {', '.join(wrong)}. Lower the learning rate, "
                "clip the gradient (clip_norm), or turn amp off."
            )
        return losses
