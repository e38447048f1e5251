"""A weighted sum of named terms, one row a term of the paper's equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .kernel import ScheduledWeight

_REQUIRED = ("name", "weight", "loss", "inputs")


class LossTable:
    """Weighted terms over a graph's tensors.

    Args:
        terms: rows ``{"name", "weight", "loss", "inputs"}``, and ``"kwargs"`` where the loss takes further arguments:
            the term's name, unique in the table; its factor; a callable that gives a scalar or a tensor that is
            averaged; the names of the tensors that it is given, in order. A term of weight 0 is never computed. A
            weight may change while training goes on: ``schedule["<name>"]`` of a
            :class:`~common.losses.KernelSchedule`, a factor for each value that the loss gives.

    Raises:
        ValueError: when a row lacks or misspells a key, has no number or schedule as weight, no callable as loss, no
            list as inputs, or a name that is taken. The message names the row.
    """

    def __init__(self, terms: Sequence[Mapping[str, Any]]) -> None:
        self.terms: dict[str, tuple[float | ScheduledWeight, Callable, tuple[str, ...], dict]] = {}
        names: set[str] = set()
        for i, row in enumerate(terms):
            label = f"loss table, row {i} ({row.get('name', 'without a name')})"
            missing = [key for key in _REQUIRED if key not in row]
            unknown = [key for key in row if key not in (*_REQUIRED, "kwargs")]
            if missing or unknown:
                raise ValueError(
                    f"{label}: missing keys {missing}, unknown keys {unknown}; a row has {', '.join(_REQUIRED)} and, "
                    "where the loss needs them, kwargs."
                )
            name, weight, loss, inputs = (row[key] for key in _REQUIRED)
            if name in names:
                raise ValueError(f"{label}: the name is taken by an earlier row.")
            if isinstance(weight, bool) or not isinstance(weight, (int, float, ScheduledWeight)):
                raise ValueError(f"{label}: weight is {weight!r}, expected a number or a weight of a schedule.")
            if not callable(loss):
                raise ValueError(f"{label}: loss is {loss!r}, expected a callable, for example a torch loss.")
            if isinstance(inputs, str) or not all(isinstance(tensor, str) for tensor in inputs):
                raise ValueError(f"{label}: inputs is {inputs!r}, expected a list of tensor names.")
            names.add(name)
            if weight != 0:
                self.terms[name] = (weight, loss, tuple(inputs), dict(row.get("kwargs", {})))

    def inputs(self) -> dict[str, tuple[str, ...]]:
        """The tensors that each computed term reads, by the term's name."""
        return {name: inputs for name, (_, _, inputs, _) in self.terms.items()}

    def __call__(self, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum and the terms without their weights.

        Args:
            values: the graph's tensors by name.

        Returns:
            The sum as a float32 scalar, and ``{name: detached float32 tensor}``, whose mean is the term.
        """
        total: torch.Tensor | None = None
        parts: dict[str, torch.Tensor] = {}
        for name, (weight, loss, inputs, kwargs) in self.terms.items():
            part = loss(*[values[tensor].float() for tensor in inputs], **kwargs)
            parts[name] = part.detach()
            factor = weight.value(part) if isinstance(weight, ScheduledWeight) else weight
            weighted = (factor * part).mean()
            total = weighted if total is None else total + weighted
        if total is None:
            raise ValueError("every term of the loss table has weight 0, so there is nothing to train on.")
        return total, parts
