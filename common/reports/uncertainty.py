"""Calibration of predicted errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ..io.files import replacing


def calibration_curve(path: str | os.PathLike, predicted: Sequence[float], error: Sequence[float]) -> None:
    """Draw the root mean square error of groups of voxels over their predicted standard error.

    Args:
        path: the PNG to write.
        predicted: standard error of each group, in units of the normalised intensity.
        error: root mean square error of each group, in the same units.
    """
    figure = Figure(figsize=(4.5, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    ends = [0.8 * min(*predicted, *error), 1.2 * max(*predicted, *error)]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="as predicted")
    axes.plot(predicted, error, marker="o", markersize=4, label="found")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):  # 0.02, not 2x10^-2, of which neighbours would overlap
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="predicted standard error", ylabel="root mean square error", title="voxels of tissue, by spread")
    axes.legend(frameon=False)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
