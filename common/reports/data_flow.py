"""The data flow of a method: its steps as boxes, and its losses as numbers on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from .files import save_figure
from .layers import Place, layered

# In points; the picture has two pixels a point.
_WIDTH, _MARGIN = 800.0, 12.0
_BOX, _ROW = 28.0, 44.0
_LEAST_GAP, _MOST_GAP = 36.0, 110.0  # between layers
_BADGE = 5.8  # radius
_LINE = 13.0

_INK, _GREY, _UNUSED = "#1a1a1a", "#666666", "#999999"
_NETWORK_COLOURS = [*colormaps["Set3"].colors, *colormaps["Pastel2"].colors, *colormaps["tab20"].colors[1::2]]
_PLAYER_COLOURS = [tuple(0.85 * part for part in colour) for colour in colormaps["Dark2"].colors]

_TITLE = FontProperties(size=12, weight="bold")
_BOLD = FontProperties(size=9, weight="bold")
_PLAIN = FontProperties(size=8)
_NUMBER = FontProperties(size=7, weight="bold")


@dataclass
class Losses:
    """What a player learns, and from what.

    Args:
        networks: names of those that it trains.
        terms: ``{"name": ["input", ...]}``.
        unused: names of the terms whose weight is 0.
    """

    networks: Sequence[str]
    terms: Mapping[str, Sequence[str]]
    unused: frozenset[str] = frozenset()


@dataclass
class Flow:
    """A graph to be drawn.

    Args:
        batch_keys: names that the batch brings.
        steps: ``{"output": ("network", ("input", ...))}`` in order of computation.
        players: losses by player.
    """

    batch_keys: Sequence[str]
    steps: Mapping[str, tuple[str, Sequence[str]]]
    players: Mapping[str, Losses] = field(default_factory=dict)


def data_flow(path: str | os.PathLike, flows: Mapping[str, Flow]) -> None:
    """Draw the graphs of a method, one below the other.

    A box is a step: the network above, the tensor that it gives below. Each network has its colour, the same in all
    graphs, and the boxes of those that a player trains are round. A number on boxes is a loss over their tensors,
    listed below the graph under the player that learns from it. A loss whose weight is 0 is grey, and so is what only
    such losses need.

    Args:
        path: the PNG to write.
        flows: at least one graph by title, which may be empty.
    """
    networks = dict.fromkeys(network for flow in flows.values() for network, _ in flow.steps.values())
    colours = {name: _NETWORK_COLOURS[i % len(_NETWORK_COLOURS)] for i, name in enumerate(networks)}
    panels = [_Panel(title, flow, colours) for title, flow in flows.items()]
    legend = ["bold: a tensor, above it the network that gives it", "white: from the batch"]
    if any(flow.players for flow in flows.values()):
        legend += ["round: trained", "square: fixed", "number: a loss of the tensors that bear it"]
    if any(len(panel.used) < len(panel.names) for panel in panels):
        legend.append("grey: unused or weight 0")
    width = max(_WIDTH, *(panel.width for panel in panels))
    height = sum(panel.height for panel in panels) + 2 * _LINE + _MARGIN
    figure = Figure(figsize=(width / 72, height / 72), dpi=144, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    top = _MARGIN
    for panel in panels:
        panel.draw(axes, top)
        top += panel.height
    _write(axes, _MARGIN, height - _MARGIN, "   ·   ".join(legend), _PLAIN, _GREY)
    save_figure(figure, path)


@dataclass
class _Entry:
    """A line of a player's list: its terms over the same tensors, all of them used or none."""

    number: int
    names: list[str]
    inputs: tuple[str, ...]
    used: bool
    colour: tuple[float, float, float]

    @property
    def label(self) -> str:
        """The names; what several begin with is said once."""
        tails: dict[str, list[str]] = {}
        for name in self.names:
            head, slash, tail = name.rpartition("/")
            tails.setdefault(head + slash, []).append(tail)
        return ", ".join(head + ", ".join(names) for head, names in tails.items())


class _Panel:
    """A graph and the list of its losses: what goes where, and the drawing."""

    def __init__(self, title: str, flow: Flow, colours: Mapping[str, tuple[float, float, float]]) -> None:
        self.title, self.flow, self.colours = title, flow, colours
        self.names = [*flow.batch_keys, *flow.steps]
        self.trained = {network for losses in flow.players.values() for network in losses.networks}
        self.entries = _number(flow.players)
        self.badges: dict[str, list[_Entry]] = {name: [] for name in self.names}
        for entry in (entry for entries in self.entries.values() for entry in entries):
            for name in dict.fromkeys(entry.inputs):
                self.badges[name].append(entry)
        self.used = self._needed()
        self.layers = layered(flow.batch_keys, {name: inputs for name, (_, inputs) in flow.steps.items()})

        self.widths = [
            max(self._box_width(name) for name, _ in places if self.layers.layer[name] == i)
            for i, places in enumerate(self.layers.order)
        ]
        gap = (_WIDTH - 2 * _MARGIN - sum(self.widths)) / max(len(self.widths) - 1, 1)
        gap = min(max(gap, _LEAST_GAP), _MOST_GAP)
        self.x = [_MARGIN + sum(self.widths[:i]) + gap * i for i in range(len(self.widths))]
        self.graph_top = 2 * _LINE if title else _BADGE
        graph_bottom = self.graph_top + max(self.layers.height.values()) * _ROW + _BOX
        self.lists, self.height, width = self._place_lists(graph_bottom + 2 * _LINE)
        self.width = max(self.x[-1] + self.widths[-1] + _MARGIN, width)

    def _needed(self) -> set[str]:
        """The tensors that losses with a weight need; all, where there are no losses."""
        if not self.flow.players:
            return set(self.names)
        needed = {name for name in self.names if any(entry.used for entry in self.badges[name])}
        for output in reversed(self.flow.steps):
            if output in needed:
                needed.update(self.flow.steps[output][1])
        return needed

    def _box_width(self, name: str) -> float:
        network = self.flow.steps[name][0] if name in self.flow.steps else ""
        badges = (2 * _BADGE + 1) * len(self.badges[name])
        return 16 + max(_measure(name, _BOLD), _measure(network, _PLAIN), badges, 28)

    def _place_lists(self, top: float) -> tuple[dict[str, tuple[float, float, list[str]]], float, float]:
        """Where each player's list begins and the lines of its heading, then the bottom and the right of all.

        The lists stand side by side as far as they fit.
        """
        lists, x, y, bottom, right = {}, _MARGIN, top, top - _LINE, 0.0
        for player, entries in self.entries.items():
            rows = [_measure(entry.label, _PLAIN) + _measure(", ".join(entry.inputs), _PLAIN) for entry in entries]
            width = max([_measure(player, _BOLD), 150, *(row + 2 * _BADGE + 14 for row in rows)])
            heading = _wrap(f"trains {', '.join(self.flow.players[player].networks)}", width)
            if x > _MARGIN and x + width + _MARGIN > _WIDTH:
                x, y = _MARGIN, bottom + 2 * _LINE
            lists[player] = x, y, heading
            bottom = max(bottom, y + (len(heading) + len(entries) + 0.3) * _LINE)
            right = max(right, x + width + _MARGIN)
            x += width + 2 * _LINE
        return lists, bottom + 2 * _LINE, right

    def draw(self, axes: Axes, top: float) -> None:
        """Draw it all from this height on."""
        _write(axes, _MARGIN, top + 11, self.title, _TITLE)
        self._draw_lines(axes, top)
        for name in self.names:
            self._draw_box(axes, top, name)
        for player in self.entries:
            self._draw_list(axes, top, player)

    def _middle(self, top: float, place: Place) -> float:
        return top + self.graph_top + self.layers.height[place] * _ROW + _BOX / 2

    def _edge_colour(self, name: str) -> tuple[float, float, float] | str:
        if name not in self.flow.steps:
            return _GREY
        return tuple(0.6 * part for part in self.colours[self.flow.steps[name][0]])

    def _draw_lines(self, axes: Axes, top: float) -> None:
        to_used = {(name, i) for name, i in self.layers.height if name in self.used and self.layers.layer[name] == i}
        for a, b in reversed(sorted(self.layers.lines, key=lambda line: line[0][1])):
            if b in to_used:
                to_used.add(a)  # where it passes, a line is in use if what follows is
        for (a, b), entry in self.layers.lines.items():
            passes = self.layers.passes(b)
            style = {"color": _UNUSED, "lw": 0.8, "zorder": 1}
            if b in to_used:
                style = {"color": self._edge_colour(a[0]), "lw": 1.5, "zorder": 2}
            begin = self.x[a[1]] + (0 if self.layers.passes(a) else self._box_width(a[0]))
            column, end = self.x[a[1]] + self.widths[a[1]], self.x[b[1]]
            bend, tip = (column + end) / 2, end - (0 if passes else 4)
            y, to = self._middle(top, a), self._middle(top, b) + entry * _ROW
            # It goes up or down between the layers only, so that it meets no box.
            points = [(begin, y), (column, y), (bend, y), (bend, to), (tip, to)]
            codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
            axes.add_patch(FancyArrowPatch(path=Path(points, codes), arrowstyle="-", capstyle="round", **style))
            if not passes:
                style["lw"] = 0
                axes.add_patch(
                    FancyArrowPatch(
                        (end - 8, to), (end, to), arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, **style
                    )
                )

    def _draw_box(self, axes: Axes, top: float, name: str) -> None:
        layer, width = self.layers.layer[name], self._box_width(name)
        x, middle = self.x[layer], self._middle(top, (name, layer))
        network = self.flow.steps[name][0] if name in self.flow.steps else ""
        used = name in self.used
        style = {"fc": "white", "ec": _UNUSED, "lw": 0.8, "ls": (0, (3, 2))}
        if used:
            style = {"fc": self.colours.get(network, "white"), "ec": self._edge_colour(name), "lw": 1.2}
        corner = 8 if network in self.trained else 0.1
        shape = f"round,pad=0,rounding_size={corner}"
        axes.add_patch(FancyBboxPatch((x, middle - _BOX / 2), width, _BOX, boxstyle=shape, zorder=3, **style))
        colour = _INK if used else _GREY
        _write(axes, x + width / 2, middle - 2.5, network, _PLAIN, colour, ha="center")
        _write(axes, x + width / 2, middle + (9.5 if network else 3.5), name, _BOLD, colour, ha="center")
        for i, entry in enumerate(reversed(self.badges[name])):
            _badge(axes, x + width - 10 - (2 * _BADGE + 1) * i, middle - _BOX / 2 - 3, entry)

    def _draw_list(self, axes: Axes, top: float, player: str) -> None:
        x, y, heading = self.lists[player]
        y += top
        entries = self.entries[player]
        _write(axes, x, y, player, _BOLD, entries[0].colour if entries else _INK)
        for line in heading:
            y += _LINE
            _write(axes, x, y, line, _PLAIN, _GREY)
        y += 0.3 * _LINE
        for entry in entries:
            y += _LINE
            _badge(axes, x + _BADGE, y - 3, entry)
            left = x + 2 * _BADGE + 5
            _write(axes, left, y, entry.label, _PLAIN, _INK if entry.used else _UNUSED)
            left += _measure(entry.label, _PLAIN) + 9
            _write(axes, left, y, ", ".join(entry.inputs), _PLAIN, _GREY if entry.used else _UNUSED)


def _number(players: Mapping[str, Losses]) -> dict[str, list[_Entry]]:
    """The lines of each player's list, numbered throughout."""
    lines: dict[str, list[_Entry]] = {}
    number = 0
    for i, (player, losses) in enumerate(players.items()):
        colour = _PLAYER_COLOURS[i % len(_PLAYER_COLOURS)]
        found: dict[tuple, _Entry] = {}
        for name, inputs in losses.terms.items():
            key = tuple(inputs), name not in losses.unused
            if key not in found:
                number += 1
                found[key] = _Entry(number, [], *key, colour)
            found[key].names.append(name)
        lines[player] = list(found.values())
    return lines


def _measure(text: str, font: FontProperties) -> float:
    """Width of a text in points."""
    return TextPath((0, 0), text, prop=font).get_extents().x1 if text else 0.0


def _wrap(text: str, width: float) -> list[str]:
    """Break a text into lines of at most this width; a word that is longer has a line for itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _measure(longer, _PLAIN) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(
    axes: Axes, x: float, y: float, text: str, font: FontProperties, colour: object = _INK, ha: str = "left"
) -> None:
    axes.text(x, y, text, color=colour, fontproperties=font, ha=ha, va="baseline", parse_math=False, zorder=4)


def _badge(axes: Axes, x: float, y: float, entry: _Entry) -> None:
    face, ink = (entry.colour, "white") if entry.used else ("white", _UNUSED)
    axes.add_patch(Circle((x, y), _BADGE, fc=face, ec=ink, lw=0.8, zorder=5))
    style = {"ha": "center", "va": "baseline", "zorder": 6}
    axes.text(x, y + 2.6, str(entry.number), color=ink, fontproperties=_NUMBER, **style)
