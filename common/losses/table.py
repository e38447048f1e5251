"""A weighted sum of named terms, one row per term of the paper's equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class ChangingWeight(Protocol):
    """A weight that changes during training."""

    def get_value(self) -> torch.Tensor:
        """The current factors, in the shape of the term that they weigh: one tensor, which is changed in place."""

    def to(self, device: torch.device) -> Any:
        """Keep the factors on this device from now on."""


class LossTable:
    """Weighted terms over a graph's tensors.

    Args:
        rows: ``{"name": [weight, loss, "input", ...]}``. ``name`` is the term's name. ``weight`` is a number or a
            :class:`ChangingWeight`. ``loss`` is a callable that gives a scalar, or a tensor that is averaged. The
            inputs are the names of its tensors, in order. A number after a name is a tensor of this value in the shape
            of the first, such as the verdict 1 of real images. A term of weight 0 is never computed. A row that an
            overlay sets to None is left out.

    Raises:
        ValueError: if a row is not a list of at least three items: a number of at least 0 or a changing weight, a
            callable, and inputs. The message names the row.
    """

    def __init__(self, rows: Mapping[str, Sequence[Any] | None] | None) -> None:
        if not isinstance(rows, Mapping):
            raise ValueError(f'a loss table is {rows!r}, expected {{"name": [weight, loss, "input", ...], ...}}.')
        self.terms: dict[str, tuple[float | ChangingWeight, Callable, tuple[str | float, ...]]] = {}
        for name, row in rows.items():
            if row is None:
                continue
            label = f"loss table, row '{name}'"
            if isinstance(row, (str, Mapping)) or not isinstance(row, Sequence) or len(row) < 3:
                raise ValueError(f'{label} is {row!r}, expected [weight, loss, "input", ...], or null to leave it out.')
            weight, loss, *inputs = row
            if isinstance(weight, bool) or not isinstance(weight, (int, float, ChangingWeight)):
                raise ValueError(f"{label}: the weight is {weight!r}, expected a number or a weight of a schedule.")
            if isinstance(weight, (int, float)) and weight < 0:
                raise ValueError(f"{label}: the weight is {weight}, expected 0 or more: negative ones raise the loss.")
            if not callable(loss):
                raise ValueError(f"{label}: the loss is {loss!r}, expected a callable, for example a torch loss.")
            if not all(isinstance(each, str) or (i and type(each) in (int, float)) for i, each in enumerate(inputs)):
                raise ValueError(
                    f"{label}: the inputs are {inputs!r}, expected names of tensors, or numbers after one."
                )
            if weight != 0:
                self.terms[name] = (weight, loss, tuple(inputs))

    def list_inputs(self) -> dict[str, tuple[str, ...]]:
        """The tensors that each computed term reads, by the term's name."""
        terms = self.terms.items()
        return {name: tuple(each for each in inputs if isinstance(each, str)) for name, (_, _, inputs) in terms}

    def to(self, device: torch.device) -> LossTable:
        """Move losses and changing weights to a device, once; a copy in each iteration would block."""
        for weight, loss, _ in self.terms.values():
            for part in (weight, loss):
                if isinstance(part, (nn.Module, ChangingWeight)):
                    part.to(device)
        return self

    def __call__(self, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the weighted sum, and the terms without their weights.

        Args:
            values: the graph's tensors by name.

        Returns:
            The sum as a float32 scalar, and ``{name: detached float32 tensor}``, whose mean is the term.
        """
        total: torch.Tensor | None = None
        parts: dict[str, torch.Tensor] = {}
        for name, (weight, loss, inputs) in self.terms.items():
            first = values[inputs[0]].float()  # type: ignore[index]
            further = [values[e].float() if isinstance(e, str) else torch.full_like(first, e) for e in inputs[1:]]
            part = loss(first, *further)
            parts[name] = part.detach()
            factor = weight.get_value() if isinstance(weight, ChangingWeight) else weight
            weighted = (factor * part).mean()
            total = weighted if total is None else total + weighted
        if total is None:
            raise ValueError("every term of the loss table has weight 0, so there is nothing to train on.")
        return total, parts


class WarmUp:
    """A weight in a :class:`~common.losses.LossTable` that is 0 in the first iterations; also its player's schedule.

    Args:
        iterations: number of iterations for which it is 0.
        weight: after these iterations.
    """

    def __init__(self, iterations: int, weight: float = 1.0) -> None:
        self.weight, self.iterations, self.iteration = weight, iterations, 0
        self.current = torch.tensor(0.0)
        self._update()

    def get_value(self) -> torch.Tensor:
        """The current weight, a scalar."""
        return self.current

    def to(self, device: torch.device) -> WarmUp:
        """Keep the weight on this device from now on."""
        self.current = self.current.to(device)
        return self

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Count an iteration, whatever its terms."""
        self.iteration += 1
        self._update()

    def state_dict(self) -> dict[str, Any]:
        """The iteration."""
        return {"iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.iteration = state["iteration"]
        self._update()

    def _update(self) -> None:
        self.current.fill_(self.weight * (self.iteration >= self.iterations))
