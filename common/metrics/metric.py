"""A metric as an entry of JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Metric:
    """A metric of an evaluation, and how its table shows it.

    Args:
        function: of a result and HR, tensors ``(1, 1, X, Y, Z)`` in [0, 1] on the evaluator's device, such as a metric
            of MONAI. The mean of what it returns counts. None in a table that was read.
        title: of its column; default its name.
        decimals: of its mean.
        more_is_better: said below the table; None if neither is.
        is_printed: whether the printed table has it; the files have all.
    """

    function: Callable[..., Any] | None
    title: str = ""
    decimals: int = 4
    more_is_better: bool | None = None
    is_printed: bool = True

    def describe(self) -> dict[str, Any]:
        """Its fields but the function, as JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in fields(Metric)[1:]}
