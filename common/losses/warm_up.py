"""A weight that is 0 until its term is meaningful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class WarmUp:
    """A weight in a :class:`~common.losses.LossTable` that is 0 in the first iterations; also its player's schedule.

    Args:
        iterations: number of iterations for which it is 0.
        weight: after these iterations.
    """

    def __init__(self, iterations: int, weight: float = 1.0) -> None:
        self.weight, self.iterations, self.iteration = weight, iterations, 0
        self.current = torch.tensor(0.0)
        self._set()

    def value(self) -> torch.Tensor:
        """The current weight, a scalar."""
        return self.current

    def to(self, device: torch.device) -> WarmUp:
        """Keep the weight on this device from now on."""
        self.current = self.current.to(device)
        return self

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Count an iteration, whatever its terms."""
        self.iteration += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """The iteration."""
        return {"iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.iteration = state["iteration"]
        self._set()

    def _set(self) -> None:
        self.current.fill_(self.weight * (self.iteration >= self.iterations))
