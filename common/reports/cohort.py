"""Results over all cases: the table, its box plots, and the table of several runs."""

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

__all__ = ["box_plots", "merge_tables", "write_table"]

METRICS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "displacement_x": ("shift x (voxel)", 2),
    "displacement_y": ("shift y (voxel)", 2),
    "displacement_z": ("shift z (voxel)", 2),
}
"""The columns of a table after ``case`` and ``method``: their titles and decimals."""
OPTIONAL = {"brisque": ("BRISQUE", 1), "lpips": ("LPIPS", 4)}
"""Columns that a table has where its rows have them."""


def _metrics(rows: Sequence[Mapping]) -> dict[str, tuple[str, int]]:
    return METRICS | {name: column for name, column in OPTIONAL.items() if any(name in row for row in rows)}


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
            ``displacement_x``, ``displacement_y``, ``displacement_z`` (HR voxels); ``brisque`` and
            ``lpips`` each in all or in none.

    Returns:
        The table of mean +- sd by method, in order of first appearance, to print.

    Raises:
        ValueError: When there are no rows or one lacks a column.
    """
    metrics = _metrics(rows)
    columns = ["case", "method", *metrics]
    if not rows:
        raise ValueError("write_table needs at least one row.")
    for row in rows:
        if missing := [column for column in columns if column not in row]:
            raise ValueError(f"The row of case {row.get('case')!r} lacks {', '.join(missing)}.")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary, lines = {}, [["method", "cases", *(title for title, _ in metrics.values())]]
    for method in methods:
        summary[method] = {}
        line = [method, str(sum(row["method"] == method for row in rows))]
        for metric, (_, decimals) in metrics.items():
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
    """Draw the table's metrics over the cases by method: a box, and a point for each case.

    Grey lines join the points of one case, so that a gain which holds in each case is seen even where cases differ
    more than methods. Infinite and undefined values are not drawn.

    Args:
        path: the PNG to write.
        rows: as for :func:`write_table`.
    """
    metrics = _metrics(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    table = np.full((len(metrics), len(methods), len(cases)), np.nan)
    for row in rows:
        table[:, methods.index(row["method"]), cases.index(row["case"])] = [float(row[metric]) for metric in metrics]
    table[~np.isfinite(table)] = np.nan
    figure = Figure(figsize=(2.0 + len(metrics) * (1.2 + 0.4 * len(methods)), 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(metrics))
    # Points side by side, by case, the same in every panel and run.
    spread = np.linspace(-0.12, 0.12, len(cases)) if len(cases) > 1 else np.zeros(1)
    colours = [f"C{i}" for i in range(len(methods))]
    shifts = [panel for panel, metric in zip(panels, metrics, strict=True) if metric.startswith("displacement")]
    for panel, metric, values in zip(panels, metrics, table, strict=True):
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
        panel.set_title(metrics[metric][0], fontsize=10)
        panel.set_xticks(range(len(methods)), methods, rotation=30 if len(methods) > 2 else 0)
        panel.grid(axis="y", alpha=0.3)
    # One scale for the three shifts, with room for 0.1 voxel, so that nothing small looks large.
    limit = 1.1 * max(0.1, float(np.nanmax(np.abs(table[2:5]), initial=0.0)))
    for panel in shifts:
        panel.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        panel.set_ylim(-limit, limit)
    save_figure(figure, path)


def merge_tables(output_dir: str | os.PathLike, folders_by_name: Mapping[str, Sequence[str | os.PathLike]]) -> str:
    """Join the tables of several runs into one: ``table.csv``, ``table.json`` and ``boxplots.png``.

    Each run's method takes the name of its entry; an entry's folders are pooled, as the folds of a cross-validation
    are. The rows of cubic interpolation appear once, and once more as ``cubic (<entry>)`` before each entry whose
    cubic rows are not those of the first entry: it was tested on other cases or on another LR.

    Args:
        output_dir: the folder to write to.
        folders_by_name: the folders with a ``table.json`` of :func:`write_table`, of one method beside ``"cubic"``, by
            the name that the method has in the joint table. A value that is null there is NaN here.

    Returns:
        The table of mean +- sd by method, to print.

    Raises:
        FileNotFoundError: when a folder has no ``table.json``.
        ValueError: when a table has not one method beside ``"cubic"``, an entry is itself named ``"cubic"``, a case is
            in two folders of one entry, or there are no entries.
    """
    rows: list[dict] = []
    baseline: dict[str, float] | None = None
    for name, folders in folders_by_name.items():
        if name == "cubic":
            raise ValueError("an entry is named 'cubic', as the rows of cubic interpolation are; give it another name.")
        pooled: dict[str, list[dict]] = {"cubic": [], name: []}
        place: dict[str, str | os.PathLike] = {}
        for folder in folders:
            cases = _cases(folder)
            if twice := [case for case in dict.fromkeys(row["case"] for row in cases) if case in place]:
                raise ValueError(
                    f"{name}: the case {twice[0]} was tested in {place[twice[0]]} and again in {folder}; runs that are "
                    "pooled must not share test cases."
                )
            place.update((row["case"], folder) for row in cases)
            for row in cases:
                pooled["cubic" if row["method"] == "cubic" else name].append(row)
        cubic = {row["case"]: row["psnr"] for row in pooled["cubic"]}
        if baseline is None:
            baseline = cubic
            rows += pooled["cubic"]
        elif cubic.keys() != baseline.keys() or any(abs(cubic[case] - baseline[case]) > 1e-6 for case in cubic):
            rows += [{**row, "method": f"cubic ({name})"} for row in pooled["cubic"]]
        rows += [{**row, "method": name} for row in pooled[name]]
    text = write_table(output_dir, rows)
    box_plots(Path(output_dir) / "boxplots.png", rows)
    return text


def _cases(folder: str | os.PathLike) -> list[dict]:
    """The rows of a folder's ``table.json``, of cubic interpolation and of one method."""
    path = Path(folder) / "table.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no table.json in {folder}; evaluate the run that should have written it.")
    cases = [
        {key: math.nan if value is None else value for key, value in row.items()}
        for row in json.loads(path.read_text())["cases"]
    ]
    methods = list(dict.fromkeys(row["method"] for row in cases if row["method"] != "cubic"))
    if len(methods) != 1:
        raise ValueError(
            f"{path}: expected the rows of one method beside cubic, found {', '.join(methods) or 'none'}; evaluate the "
            "run without --others."
        )
    return cases
