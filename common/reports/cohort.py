"""Results over all cases: the table, and its box plots."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..io.files import format_json
from ..io.writing import write_atomically
from ..metrics.metric import Metric
from .evaluated import METRICS
from .files import align_columns, escape_text, save_figure

MEASURED = {"data_range": ("percentile", "maximum"), "score_over": ("volume", "slices", "centre_slice")}
"""Options of how PSNR and SSIM are taken, as :class:`common.handlers.EvaluationReport` explains; defaults first."""

KEYS = ("person", "seed")
"""Optional columns after ``case`` and ``method``: what tells rows of a method apart."""
LABELS = ("iterations", "seconds", "machine", "precision", "trained", "knew", "published")
"""Optional columns after the scores: how, where and from what a row was trained, and whether it learned anything."""
_UNTRAINED = 0.05  # dB, by choice; standard deviations over three seeds were 0.01 to 0.23 in the tables so far

_BOXED = 5  # quartiles of fewer cases say less than their points


def _select_metrics(rows: Sequence[Mapping], metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: metric for name, metric in metrics.items() if any(name in row for row in rows)}


def describe_gain_over_start(psnr: float, start: float) -> str:
    """Compare a mean PSNR in dB with that of the untrained start.

    Returns:
        ``not trained`` within 0.05 dB, ``below start`` if lower, else ``yes``.
    """
    if abs(psnr - start) <= _UNTRAINED:
        return "not trained"
    return "yes" if psnr > start else "below start"


def select_values(rows: Sequence[Mapping], method: str, metric: str) -> np.ndarray:
    """Return the values to average: a metric's defined values by case."""
    values = np.array([float(row[metric]) for row in rows if row["method"] == method])
    return values[~np.isnan(values)]


def describe_measurement(rows: Sequence[Mapping]) -> dict[str, str]:
    """Return how PSNR and SSIM are taken in all rows, if not by default."""
    values_by_name = {
        name: list(dict.fromkeys(row.get(name, values[0]) for row in rows)) for name, values in MEASURED.items()
    }
    for name, values in values_by_name.items():
        if len(values) > 1:
            raise ValueError(
                f"PSNR and SSIM are not on one scale: {name} is {' in some rows and '.join(values)} in others; "
                "evaluate all runs with the same."
            )
    return {name: value for name, (value,) in values_by_name.items() if value != MEASURED[name][0]}


def write_table(
    output_dir: str | os.PathLike,
    rows: Sequence[Mapping],
    metrics: Mapping[str, Metric] = METRICS,
    task: Sequence[str] = (),
) -> str:
    """Write the results as ``table.csv`` (by case) and ``table.json`` (by case, and mean and sd by method).

    NaN metrics are left out of the mean and of ``n``. The standard deviation is that of the sample (n - 1). NaN and
    infinity are null in JSON.

    Args:
        output_dir: the folder to write to.
        rows: for each case and method, ``case``, ``method``, and metrics, each in all or in none. Optional:
            ``data_range`` and ``score_over``, of which the table has what is not the default; ``person``; ``seed``,
            ``iterations``, ``seconds``, ``machine`` and ``precision`` of the training, whether it ``trained`` anything
            (:func:`describe_gain_over_start`), and what it ``knew``.
        metrics: the columns; ``table.json`` describes those that not every table has.
        task: what ``table.json`` says of how LR was made.

    Returns:
        The table of mean +- sd of metrics by method, in order of first appearance, to print; of one case its value.
    """
    if not rows:
        raise ValueError("write_table needs at least one row.")
    metrics = _select_metrics(rows, metrics)
    shown = [metric for metric in metrics.values() if metric.is_printed]
    measured = describe_measurement(rows)
    given = [name for name in (*KEYS, *LABELS) if any(row.get(name) is not None for row in rows)]
    keys = ["case", "method", *(name for name in given if name in KEYS), *measured]
    labels = [name for name in given if name in LABELS]
    columns = [*keys, *metrics, *labels]
    for row in rows:
        if missing := [column for column in ("case", "method", *metrics) if column not in row]:
            raise ValueError(f"The row of case {row.get('case')!r} lacks {', '.join(missing)}.")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary: dict[str, Any] = {}
    mixed = [label for label in ("machine", "precision") if len({row.get(label) for row in rows} - {None}) > 1]
    printed = [label for label in labels if label in ("iterations", "trained", "knew", "published", *mixed)]
    counted = [(title, key) for title, key in (("people", "person"), ("cases", "case")) if key in keys]
    lines = [["method", *(title for title, _ in counted), *(metric.title for metric in shown), *printed]]
    for method in methods:
        summary[method] = {}
        of_method = [row for row in rows if row["method"] == method]
        counts = [{row.get(key) for row in of_method} for _, key in counted]
        line = [method, *("-" if None in values else str(len(values)) for values in counts)]
        for name, metric in metrics.items():
            values, decimals = select_values(rows, method, name), metric.decimals
            mean = float(np.mean(values)) if values.size else math.nan
            sd = float(np.std(values, ddof=1)) if values.size > 1 and np.isfinite(values).all() else math.nan
            summary[method][name] = {"mean": mean, "sd": sd, "n": values.size}
            spread = "" if math.isnan(sd) else f" +- {sd:.{decimals}f}"
            if metric.is_printed:
                line.append("-" if math.isnan(mean) else f"{round(mean, decimals) + 0.0:.{decimals}f}{spread}")
        lines.append([*line, *(str(of_method[0].get(label) or "-") for label in printed)])
    if "published" in printed and "cubic" in summary:  # beside it, the same of ours
        lines[0].append("gain over cubic")
        for line, ours in zip(lines[1:], summary.values(), strict=True):
            gains = [ours[score]["mean"] - summary["cubic"][score]["mean"] for score in ("psnr", "ssim")]
            line.append("-" if ours is summary["cubic"] else "{:+.2f}/{:+.3f}".format(*gains))

    with (
        write_atomically(Path(output_dir) / "table.csv") as path,
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    listed = [{c: float(row[c]) if c in metrics else row.get(c) for c in columns} for row in rows]
    with write_atomically(Path(output_dir) / "table.json") as path:
        own = {name: metric.describe() for name, metric in metrics.items() if name not in METRICS}
        content: dict[str, Any] = {"task": list(task)} if task else {}
        content |= {"cases": listed, "summary": summary} | ({"metrics": own} if own else {})
        path.write_text(format_json(content, indent=2) + "\n")

    text = align_columns(lines)
    for word, more in (("more", True), ("less", False)):
        if titles := [metric.title for metric in shown if metric.more_is_better is more]:
            text += f"\n{word} is better: {', '.join(titles)}"
    if "trained" in labels:
        text += f"\nnot trained: mean PSNR within {_UNTRAINED} dB of that of the untrained start; below start: lower"
    if measured:
        measurement = ", ".join(f"{name} {value}" for name, value in measured.items())
        text += f"\nPSNR and SSIM with {measurement}: not comparable with tables that do not say so"
    return text


def draw_box_plots(path: str | os.PathLike, rows: Sequence[Mapping], metrics: Mapping[str, Metric] = METRICS) -> None:
    """Draw the table's metrics over the cases by method: a point for each case, and a box if there are five.

    Grey lines join the points of a case: they show its gain even if cases differ more than methods. Values that are
    not finite are not drawn.

    Args:
        path: the PNG to write.
        rows, metrics: as for :func:`write_table`.
    """
    metrics = _select_metrics(rows, metrics)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    table = np.full((len(metrics), len(methods), len(cases)), np.nan)
    for row in rows:
        table[:, methods.index(row["method"]), cases.index(row["case"])] = [float(row[metric]) for metric in metrics]
    table[~np.isfinite(table)] = np.nan
    figure = Figure(figsize=(2.0 + len(metrics) * (1.2 + 0.4 * len(methods)), 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    # Points side by side, by case, the same in every panel and run.
    spread = np.linspace(-0.12, 0.12, len(cases)) if len(cases) > 1 else np.zeros(1)
    colours = [f"C{i}" for i in range(len(methods))]
    is_shift = [metric.startswith("displacement") for metric in metrics]
    for panel, metric, values in zip(panels, metrics, table, strict=True):
        boxes = panel.boxplot(
            [v[finite] if (finite := ~np.isnan(v)).sum() >= _BOXED else [] for v in values],
            positions=range(len(methods)),
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        panel.plot(np.arange(len(methods))[:, None] + spread, values, color="0.75", linewidth=0.6, zorder=2.5)
        for i, (box, colour) in enumerate(zip(boxes["boxes"], colours, strict=True)):
            box.set(facecolor=colour, alpha=0.35)
            panel.plot(i + spread, values[i], "o", color=colour, markersize=4, zorder=3)
        panel.set_title(escape_text(metrics[metric].title), fontsize=10)
        crowded = len(methods) > 2 or max(map(len, methods)) > 8
        slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        panel.set_xticks(range(len(methods)), map(escape_text, methods), **slanted)
        panel.grid(axis="y", alpha=0.3)
    # One scale for the three shifts, with room for 0.1 voxel, so that nothing small looks large.
    limit = 1.1 * max(0.1, float(np.nanmax(np.abs(table[is_shift]), initial=0.0)))
    for panel in panels[is_shift]:
        panel.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        panel.set_ylim(-limit, limit)
    save_figure(figure, path)
