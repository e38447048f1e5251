"""Pictures of intervals: how often they hold, and how well their widths sort errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def draw_coverage(coverage: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the coverage of each person, a point, by region, and the mean over the persons.

    Args:
        coverage: 0 to 1, of each person, by region.
    """
    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, shares in enumerate(coverage.values()):
        shifts = np.linspace(-0.15, 0.15, len(shares)) if len(shares) > 1 else np.zeros(1)
        axes.plot(place + shifts, shares, "o", markersize=3, color="0.6")
        axes.plot([place - 0.25, place + 0.25], [np.mean(shares)] * 2, color="C0", linewidth=2)
    axes.set_xticks(range(len(coverage)), list(coverage))
    axes.set(ylabel="coverage", ylim=(min(0.5, *(min(s) for s in coverage.values())), 1.0))
    axes.set_title("points: persons; lines: means", fontsize=9)
    axes.grid(axis="y", color="0.9")
    return figure


def draw_sparsification(shares: np.ndarray, curve: np.ndarray, oracle: np.ndarray) -> Figure:
    """Draw the error that is left when voxels with the widest intervals are left out: mean and range over persons.

    Args:
        shares: of the voxels that are left out, (N,).
        curve, oracle: mean error left over that of all, (persons, N), by width and by the error itself.
    """
    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [1, 1], color="0.5", linestyle="--", label="at random")
    for values, label, colour in ((curve, "the widest intervals", "C0"), (oracle, "the largest errors", "0.3")):
        axes.fill_between(shares, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(shares, values.mean(axis=0), color=colour, label=label)
    axes.set(xlabel="share of the tissue's voxels left out", ylabel="mean error left", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure
