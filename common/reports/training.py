"""Loss curves of a training run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from .files import save_figure


def _read(history: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Iterations and values by key, in order of first appearance."""
    lines = Path(history).read_text().splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            # A killed run may leave a half-written last line, and a resumed run continues after it.
            if not line.startswith("{") or '"iteration"' not in line:
                raise ValueError(f"{history}, line {number}: not a JSON object with an iteration.") from error
    series: dict[str, dict[int, float]] = {}
    for entry in entries:
        for key, value in entry.items():
            if key not in ("iteration", "epoch"):
                # A resumed run repeats the iterations after its checkpoint; the later line counts.
                series.setdefault(key, {})[entry["iteration"]] = math.nan if value is None else float(value)
    return {
        key: (np.array(sorted(values)), np.array([values[i] for i in sorted(values)])) for key, values in series.items()
    }


def loss_curves(path: str | os.PathLike, history: str | os.PathLike) -> None:
    """Draw every term of every player over the iterations, smoothed over faint raw values, and the validation.

    Args:
        path: the PNG to write.
        history: JSON lines as the trainer writes them: ``{"iteration": 1, "epoch": 1, "generator/image_cycle/l1": 0.1,
            ...}``; keys that begin with ``validation/`` are drawn as points. If a run was resumed, later lines
            replace earlier ones of the same iteration.

    Raises:
        ValueError: When a line is no JSON object or there is nothing to draw.
    """
    series = _read(history)
    if not series:
        raise ValueError(f"{history} holds no losses.")
    last = max(int(iterations[-1]) for iterations, _ in series.values())
    columns = min(4, len(series))
    rows = math.ceil(len(series) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * rows + 0.3), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    players = list(dict.fromkeys(key.split("/")[0] for key in series))
    for panel, (key, (iterations, values)) in zip(panels, series.items(), strict=False):
        colour = f"C{players.index(key.split('/')[0])}"
        finite = np.isfinite(values)
        title = key if finite.all() else f"{key}\n{np.sum(~finite)} not finite"
        panel.set_title(title, fontsize=8, color="black" if finite.all() else "red")
        iterations, values = iterations[finite], values[finite]
        if key.startswith("validation/"):
            panel.plot(iterations, values, "o-", color=colour, markersize=3, linewidth=1)
        elif values.size:
            panel.plot(iterations, values, color=colour, alpha=0.25, linewidth=0.6)
            panel.plot(iterations, uniform_filter1d(values, max(1, values.size // 50), mode="reflect"), color=colour)
            if values.min() > 0 and values.max() > 3 * values.min():
                panel.set_yscale("log")
        panel.tick_params(labelsize=7, which="both")
        panel.grid(alpha=0.3)
    for panel in panels[len(series) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(series) - columns) : len(series)]:
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelbottom=True)
    panels[0].set_xlim(0, last * 1.02)
    save_figure(figure, path)
