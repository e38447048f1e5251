"""A weight that waits until what it weighs means something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class WarmUp:
    """A weight in a :class:`~common.losses.LossTable` that is 0 for the first iterations, and its player's schedule.

    Args:
        iterations: for which it is 0.
        weight: after them.
    """

    def __init__(self, iterations: int, weight: float = 1.0) -> None:
        self.weights = torch.tensor([0.0, weight])
        self.iterations = iterations
        self.iteration = 0

    def value(self) -> torch.Tensor:
        """The weight now, a scalar."""
        return self.weights[int(self.iteration >= self.iterations)]

    def to(self, device: torch.device) -> WarmUp:
        """Keep the weight on this device from now on."""
        self.weights = self.weights.to(device)
        return self

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Count an iteration, whatever its terms."""
        self.iteration += 1

    def state_dict(self) -> dict[str, Any]:
        """The iteration."""
        return {"iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.iteration = state["iteration"]
