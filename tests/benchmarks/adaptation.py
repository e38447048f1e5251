"""Draw whether adaptation pays: gains over cubic by person and seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from .queue.units import Lines

TABLE = "adaptation"
ROWS = {  # by legend
    "not adapted": "UDEAN's network, supervised",
    "UDEAN": "UDEAN",
    "knew the degradation": "UDEAN's network, supervised, true operator",
}


def draw_adaptation(cubic: Lines, rows: Mapping[str, Lines]) -> Figure:
    """Draw the gains over cubic of each person: a dot a seed, a bar their mean, and the mean over all people last.

    Args:
        cubic: its lines of ``results.csv``.
        rows: lines of the others, by legend. Each person's gain by data consistency alone is a line.
    """
    base = {line["person"]: float(line["psnr"]) for line in cubic}
    alone = [float(line["psnr_dc"]) - float(line["psnr"]) for line in cubic]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for i, (legend, lines) in enumerate(rows.items()):
        gains: dict[str, list[float]] = {}  # by seed, in the order of people
        for seed in sorted({line["seed"] for line in lines}):
            own = {line["person"]: float(line["psnr"]) - base[line["person"]] for line in lines if line["seed"] == seed}
            gains[seed] = [own[person] for person in base] + [float(np.mean(list(own.values())))]
        places = np.arange(len(base) + 1) + (i - (len(rows) - 1) / 2) * width
        axes.bar(places, np.mean(list(gains.values()), axis=0), width, color=f"C{i}", alpha=0.5, label=legend)
        for values in gains.values():
            axes.plot(places, values, ".", color="black", markersize=4)
    for i, gain in enumerate([*alone, float(np.mean(alone))]):
        axes.plot(
            [i - 0.45, i + 0.45],
            [gain, gain],
            color="C3",
            linewidth=2,
            label="data consistency alone" if not i else None,
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(len(base) - 0.5, color="grey", linestyle=":")
    axes.set_xticks(range(len(base) + 1), [*base, "mean"], rotation=20)
    axes.set_ylabel("gain over cubic (dB)")
    figure.legend(loc="outside upper center", ncols=len(rows) + 1)
    return figure
