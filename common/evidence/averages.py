"""Means over persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .judgement import Rows


def average_over_persons(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> Rows:
    """The mean and the standard deviation over persons, by method and other columns; none for a single person.

    Several lines of one person are averaged first: one person is one unit.

    Args:
        rows: of a table, with the columns ``person`` and ``method``.
        by: other columns of which each value is apart, such as ``region``.

    Returns:
        Two lines for each: ``person`` is "mean of 8" and "SD of 8".
    """
    groups: dict[tuple, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[tuple(row.get(name) for name in ("method", *by))][row["person"]].append(row)
    averages: Rows = []
    for key, persons in groups.items():
        if len(persons) < 2:
            continue
        known = dict(zip(("method", *by), key, strict=True))
        first = next(iter(persons.values()))[0]
        numbers = [name for name, value in first.items() if isinstance(value, float) and name not in known]
        means, deviations = {}, {}
        for name in numbers:
            own = [np.mean([line.get(name, np.nan) for line in lines]) for lines in persons.values()]
            values = np.array([value for value in own if not np.isnan(value)])
            if len(values) > 1:
                means[name], deviations[name] = float(values.mean()), float(values.std(ddof=1))
        for word, found in (("mean", means), ("SD", deviations)):
            averages.append({"person": f"{word} of {len(persons)}", "result": known["method"], **known, **found})
    return averages
