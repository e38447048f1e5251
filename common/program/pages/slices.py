"""A picture of what was found about each slice of the stacks of an exam."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...reports.files import escape_text


def draw_slices(report: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Draw residual, motion and gain of each slice. Slices that count less are orange, those left out red, numbered.

    Args:
        report: of :class:`common.inferers.StacksInferer`, by stack; None is returned if no stack has slices.
    """
    stacks = {name: stack["Slices"] for name, stack in report.items() if "Slices" in stack}
    if not stacks:
        return None
    figure = Figure(figsize=(11, 1.9 * len(stacks) + 0.3), dpi=100, layout="constrained")
    panels = figure.subplots(len(stacks), 3, squeeze=False, width_ratios=(2, 1, 1), sharey="col", sharex="row")
    for row, (name, slices) in zip(panels, stacks.items(), strict=True):
        weight = np.array(slices["Weight"])
        colours = np.where(weight == 0, "tab:red", np.where(weight < 1, "tab:orange", "tab:blue"))
        number = np.arange(len(weight))
        drawn = (
            ("residual", slices["Residual"]),
            ("motion (mm)", slices.get("Moved", 0 * number)),
            ("gain", slices["Gain"]),
        )
        for axes, (title, values) in zip(row, drawn, strict=True):
            heights = np.array(values, dtype=float)  # NaN where unknown
            base = 1.0 if title == "gain" else 0.0
            axes.bar(number, heights - base, bottom=base, color=colours)
            axes.set_ylabel(title, fontsize=8)
            axes.tick_params(labelsize=7, labelleft=True)
            axes.margins(y=0.15)  # room for numbers
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            for i in np.flatnonzero((weight < 1) & np.isfinite(heights)):
                axes.annotate(str(i), (i, heights[i]), ha="center", va="bottom", fontsize=8)
        row[0].set_title(escape_text(Path(name).name), fontsize=9, loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("slice, counted from 0", fontsize=8)
    return figure
