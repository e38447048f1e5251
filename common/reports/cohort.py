"""Results over all cases: the table and its box plots."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..files import replacing
from .files import save_figure

__all__ = ["box_plots", "write_table"]

METRICS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "displacement_x": ("shift x (voxel)", 2),
    "displacement_y": ("shift y (voxel)", 2),
    "displacement_z": ("shift z (voxel)", 2),
}
"""The columns of a table after ``case`` and ``method``: their titles and decimals."""


def _values(rows: Sequence[Mapping], method: str, metric: str) -> np.ndarray:
    """The finite and infinite values of a metric, without the cases where it is not defined."""
    values = np.array([float(row[metric]) for row in rows if row["method"] == method])
    return values[~np.isnan(values)]


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def write_table(output_dir: str | os.PathLike, rows: Sequence[Mapping]) -> str:
    """Write the results as ``table.csv`` (by case) and ``table.json`` (by case, and mean and sd by method).

    Cases where a metric is NaN are left out of its mean and counted out of its ``n``. The standard deviation is that
    of the sample (n - 1). NaN and infinity are null in JSON.

    Args:
        output_dir: the folder to write to.
        rows: one mapping for each case and method with ``case``, ``method``, ``psnr`` (dB), ``ssim``, and
            ``displacement_x``, ``displacement_y``, ``displacement_z`` (HR voxels).

    Returns:
        The table of mean +- sd by method, in order of first appearance, to print.

    Raises:
        ValueError: When there are no rows or one lacks a column.
    """
    columns = ["case", "method", *METRICS]
    if not rows:
        raise ValueError("write_table needs at least one row.")
    for row in rows:
        if missing := [column for column in columns if column not in row]:
            raise ValueError(f"The row of case {row.get('case')!r} lacks {', '.join(missing)}.")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary, lines = {}, [["method", "cases", *(title for title, _ in METRICS.values())]]
    for method in methods:
        summary[method] = {}
        line = [method, str(sum(row["method"] == method for row in rows))]
        for metric, (_, decimals) in METRICS.items():
            values = _values(rows, method, metric)
            mean = float(np.mean(values)) if values.size else math.nan
            sd = float(np.std(values, ddof=1)) if values.size > 1 and np.isfinite(values).all() else math.nan
            summary[method][metric] = {"mean": _number(mean), "sd": _number(sd), "n": values.size}
            spread = "-" if math.isnan(sd) else f"{sd:.{decimals}f}"
            line.append("-" if math.isnan(mean) else f"{round(mean, decimals) + 0.0:.{decimals}f} +- {spread}")
        lines.append(line)

    with replacing(Path(output_dir) / "table.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    cases = [{c: row[c] if c in columns[:2] else _number(float(row[c])) for c in columns} for row in rows]
    with replacing(Path(output_dir) / "table.json") as path:
        path.write_text(json.dumps({"cases": cases, "summary": summary}, indent=2, allow_nan=False) + "\n")

    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def box_plots(path: str | os.PathLike, rows: Sequence[Mapping]) -> None:
    """Draw PSNR, SSIM and displacement over the cases by method: a box, and a point for each case.

    Grey lines join the points of one case, so that a gain which holds in each case is seen even where cases differ
    more than methods. Infinite and undefined values are not drawn.

    Args:
        path: the PNG to write.
        rows: as for :func:`write_table`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    table = np.full((len(METRICS), len(methods), len(cases)), np.nan)
    for row in rows:
        table[:, methods.index(row["method"]), cases.index(row["case"])] = [float(row[metric]) for metric in METRICS]
    table[~np.isfinite(table)] = np.nan
    figure = Figure(figsize=(2.0 + len(METRICS) * (1.2 + 0.4 * len(methods)), 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    # Points side by side, by case, the same in every panel and run.
    spread = np.linspace(-0.12, 0.12, len(cases)) if len(cases) > 1 else np.zeros(1)
    colours = [f"C{i}" for i in range(len(methods))]
    shifts = [panel for panel, metric in zip(panels, METRICS, strict=True) if metric.startswith("displacement")]
    for panel, metric, values in zip(panels, METRICS, table, strict=True):
        boxes = panel.boxplot(
            [v[~np.isnan(v)] for v in values],
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
        panel.set_title(METRICS[metric][0], fontsize=10)
        panel.set_xticks(range(len(methods)), methods, rotation=30 if len(methods) > 2 else 0)
        panel.grid(axis="y", alpha=0.3)
    # One scale for the three shifts, with room for 0.1 voxel, so that nothing small looks large.
    limit = 1.1 * max(0.1, float(np.nanmax(np.abs(table[2:]), initial=0.0)))
    for panel in shifts:
        panel.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        panel.set_ylim(-limit, limit)
    save_figure(figure, path)
