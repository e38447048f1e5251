"""A layered layout of steps over tensors: what depends on something stands to the right of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

# A tensor's name and a layer: its box, in the layer of its step, or in a later one where its line passes.
Place = tuple[str, int]

_STARTS = 24
_SWEEPS = 8
_LINE = 0.4  # of a row: what a line that passes takes, against 1 of a box
_ENTRY = 0.2  # of a row: between two lines that enter a box


@dataclass
class Layers:
    """Where boxes stand and lines go.

    Args:
        layer: of each tensor's box, from 0 on.
        order: places of each layer from top to bottom.
        lines: pairs of places in neighbouring layers, and how far below the middle of the second, in rows, the line
            ends.
        height: of each place's middle, in rows from the first.
    """

    layer: dict[str, int]
    order: list[list[Place]]
    lines: dict[tuple[Place, Place], float]
    height: dict[Place, float]

    def passes(self, place: Place) -> bool:
        """Whether it has no box, only a line."""
        return self.layer[place[0]] < place[1]


def layered(sources: Sequence[str], steps: Mapping[str, Sequence[str]]) -> Layers:
    """Lay out steps in layers, with few crossings of lines and few bends (after Sugiyama et al. 1981).

    A step stands one layer behind the last of its inputs; sources, and steps without inputs, in the first. A line to a
    later layer passes those between at places of its own, where no box stands; all lines from a tensor share them. The
    same steps always give the same layout.

    Args:
        sources: names of the tensors that no step gives.
        steps: ``{"output": ["input", ...]}`` in order of computation.

    Returns:
        The layout, in which boxes of a layer are at least one row apart.
    """
    layer = dict.fromkeys(sources, 0)
    for output, inputs in steps.items():
        layer[output] = 1 + max((layer[name] for name in inputs), default=-1)
    reach = dict(layer)  # the last layer that a tensor's line comes to
    for output, inputs in steps.items():
        for name in inputs:
            reach[name] = max(reach[name], layer[output] - 1)
    order: list[list[Place]] = [[] for _ in range(1 + max(layer.values()))]
    links = []
    for name in layer:
        for i in range(layer[name], reach[name] + 1):
            order[i].append((name, i))
        links += [((name, i), (name, i + 1)) for i in range(layer[name], reach[name])]
    for output, inputs in steps.items():
        links += [((name, layer[output] - 1), (output, layer[output])) for name in dict.fromkeys(inputs)]

    found: dict[tuple, int] = {}  # crossings by order
    chance = random.Random(0)
    for start in range(_STARTS):
        trial = [list(places) for places in order]
        if start:
            for places in trial:
                chance.shuffle(places)
        crossings = _untangle(trial, links)  # which reorders it
        found[tuple(map(tuple, trial))] = crossings
    least = min(found.values())
    layouts = [_heights(trial, links, layer) for trial, crossings in found.items() if crossings == least]
    return min(layouts, key=lambda layout: layout[0])[1]


def _neighbours(links: Sequence[tuple[Place, Place]]) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    """Of each place those to its left and those to its right."""
    left: dict[Place, list[Place]] = {}
    right: dict[Place, list[Place]] = {}
    for a, b in links:
        left.setdefault(b, []).append(a)
        right.setdefault(a, []).append(b)
    return left, right


def _untangle(order: list[list[Place]], links: Sequence[tuple[Place, Place]]) -> int:
    """Reorder the layers in place so that few links cross. Returns how many do."""
    left, right = _neighbours(links)
    rank = {place: i for places in order for i, place in enumerate(places)}

    def total() -> int:
        pairs = [(a, b) for places in order for i, a in enumerate(places) for b in places[i + 1 :]]
        return sum(rank[x] > rank[y] for a, b in pairs for x in left.get(a, ()) for y in left.get(b, ()))

    best, kept = total(), [list(places) for places in order]
    for sweep in range(_SWEEPS):
        side, layers = (left, order) if sweep % 2 == 0 else (right, order[::-1])
        for places in layers:
            centre = {p: sum(rank[n] for n in side[p]) / len(side[p]) if p in side else rank[p] for p in places}
            places.sort(key=centre.__getitem__)
            rank.update((place, i) for i, place in enumerate(places))
        if (found := total()) < best:
            best, kept = found, [list(places) for places in order]
    order[:] = kept
    return best


def _heights(
    order: Sequence[Sequence[Place]], links: Sequence[tuple[Place, Place]], layer: dict[str, int]
) -> tuple[float, Layers]:
    """The layout in this order whose lines go up and down least, and how much that is.

    A linear programme: its variables are the heights and a bound on each of the absolute values that are summed.
    """
    left, right = _neighbours(links)
    layout = Layers(layer, [list(places) for places in order], {}, {})
    column = {place: i for i, place in enumerate(place for places in order for place in places)}
    objective = [0.001] * len(column)  # so that what nothing holds goes to the top
    rows: list[dict[int, float]] = []
    limits: list[float] = []  # rows @ variables <= limits

    def add(weight: float, terms: Mapping[Place, float], offset: float = 0.0) -> None:
        """Add ``weight * |terms @ heights - offset|`` to the sum."""
        objective.append(weight)
        for sign in (1.0, -1.0):
            rows.append({column[place]: sign * factor for place, factor in terms.items()})
            rows[-1][len(objective) - 1] = -1.0
            limits.append(sign * offset)

    for places in order:
        room = [_LINE if layout.passes(place) else 1.0 for place in places]
        for i in range(len(places) - 1):
            rows.append({column[places[i]]: 1.0, column[places[i + 1]]: -1.0})
            limits.append(-(room[i] + room[i + 1]) / 2)
    for a, b in links:
        enter = sorted(left[b], key=order[a[1]].index)
        layout.lines[a, b] = (enter.index(a) - (len(enter) - 1) / 2) * min(_ENTRY, 0.5 / len(enter))
        # Lines that pass boxes are straight before others are, and then those that neither fork nor meet.
        straight = 1.0 + 2.0 * (layout.passes(a) + layout.passes(b)) + (len(right[a]) == len(left[b]) == 1)
        add(straight, {a: 1.0, b: -1.0}, layout.lines[a, b])
    for place in column:
        for near in (left.get(place, []), right.get(place, [])):
            if len(near) > 1:
                add(0.3, {place: 1.0, **dict.fromkeys(near, -1.0 / len(near))})
    matrix = np.zeros((len(rows), len(objective)))
    for line, terms in zip(matrix, rows, strict=True):
        line[list(terms)] = list(terms.values())
    solved = linprog(objective, matrix if rows else None, limits if rows else None)  # heights are 0 or more
    layout.height = {place: float(solved.x[i]) for place, i in column.items()}
    return solved.fun, layout
