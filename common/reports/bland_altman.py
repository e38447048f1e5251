"""Bland and Altman's picture: how two ways to measure one quantity differ over persons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .files import escape_text

_LIMITS = 1.96  # standard deviations on either side of the bias, between which 95 % of the differences lie
_FEWEST = 3  # persons with a standard deviation


def draw_bland_altman(
    pairs: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], unit: str, against: str
) -> Figure:
    """Draw the difference of two measurements over their mean, with the bias and the limits of agreement.

    Args:
        pairs: for each quantity, a panel, and for each way to measure it, a colour: value and reference by person.
        unit: of the values.
        against: what the reference is.

    Source:
        Bland and Altman, Statistical methods for assessing agreement between two methods of clinical measurement,
        Lancet 327, 1986.
    """
    figure = Figure(figsize=(4.5 * len(pairs), 4), layout="constrained")
    for axes, (quantity, by_method) in zip(
        figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items(), strict=True
    ):
        axes.axhline(0, color="0.7", linewidth=0.8)
        for number, (method, values) in enumerate(by_method.items()):
            measured, reference = np.asarray(values, dtype=float).T
            difference, colour = measured - reference, f"C{number}"
            label = f"{escape_text(method)}: {difference.mean():+.3g}"
            axes.axhline(difference.mean(), color=colour, linewidth=1)
            if len(values) >= _FEWEST:
                limit = _LIMITS * difference.std(ddof=1)
                label += f" ± {limit:.2g}"
                for sign in (-1, 1):
                    axes.axhline(difference.mean() + sign * limit, color=colour, linewidth=1, linestyle="--")
            axes.scatter((measured + reference) / 2, difference, s=18, color=colour, label=label)
        axes.set_title(escape_text(quantity))
        axes.set_xlabel(f"mean of both ({unit})")
        axes.legend(title=f"bias ± {_LIMITS} SD, {unit}", fontsize="small", title_fontsize="small")
    figure.axes[0].set_ylabel(f"difference from {escape_text(against)} ({unit})")
    return figure
