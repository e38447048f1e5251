"""A table and a picture of methods from several tables: scores and costs."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..io.files import write_atomically
from .files import align_columns, save_figure

COLUMNS = (
    "table", "method", "people", "cases", "seeds", "psnr", "psnr_sd", "ssim", "ssim_sd", "lpips", "cubic_psnr",
    "cubic_ssim", "displacement", "parameters", "training_seconds", "iterations", "seconds", "trained", "knew",
)  # fmt: skip
"""The columns of ``overview.csv``."""
_LOWEST = -3.0  # dB; lower values would hide how the other methods differ


def list_tables(output_dir: str | os.PathLike) -> set[str]:
    """Names of the tables in the overview of a folder; empty if it has none."""
    path = Path(output_dir) / "overview.csv"
    if not path.is_file():
        return set()
    with path.open(newline="") as file:
        return {row["table"] for row in csv.DictReader(file) if row.get("table")}


def write_overview(output_dir: str | os.PathLike, rows: Sequence[dict]) -> str:
    """Write ``overview.csv``, one line per method and table, and return a table to print, one line per method.

    Args:
        output_dir: the folder to write to.
        rows: each with the ``COLUMNS``. ``people`` is None if unknown. Scores are means over the cases and seeds,
            ``_sd`` standard deviations over the seeds. ``displacement`` is the largest mean along an axis, in HR
            voxels. Seconds are those of the training, 0 without one, and of a case's inference. NaN means unknown.
            ``iterations``, ``trained`` and ``knew`` are as for :func:`common.reports.write_table`.

    Returns:
        In each table's column the gain in PSNR and SSIM over cubic interpolation of the method's own input, and
        whether it is not trained or below its start.
    """
    with write_atomically(Path(output_dir) / "overview.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({key: "" if row[key] != row[key] else row[key] for key in COLUMNS} for row in rows)  # NaN
    tables = list(dict.fromkeys(row["table"] for row in rows))
    rows_by_table = {(row["table"], row["method"]): row for row in rows}
    lines = [["method", "parameters", "training (s)", "iterations", "a case (s)", *tables, "knew"]]
    for method in dict.fromkeys(row["method"] for row in rows):
        method_rows = [row for row in rows if row["method"] == method]
        cells = [_format_gain(rows_by_table.get((table, method))) for table in tables]
        parameters = max([row["parameters"] for row in method_rows if row["parameters"] > 0], default=0)
        lines.append([
            method,
            f"{parameters:,}" if parameters else "-",
            _format_range(method_rows, "training_seconds"),
            _format_range(method_rows, "iterations"),
            _format_range(method_rows, "seconds"),
            *cells,
            "; ".join(dict.fromkeys(row["knew"] for row in method_rows if row["knew"])) or "-",
        ])  # fmt: skip
    inputs = []
    for table in tables:
        scores = [(row["cubic_psnr"], row["cubic_ssim"]) for row in rows if row["table"] == table]
        different = list(dict.fromkeys((round(p, 2), round(s, 4)) for p, s in scores))
        inputs.append("; ".join(f"{p:.2f}, {s:.4f}" for p, s in different))
    lines.insert(1, ["cubic", "-", "-", "-", "-", *inputs, "-"])
    return (
        align_columns(lines)
        + "\ncubic: PSNR (dB), SSIM; the others: what they gain on cubic interpolation of their input"
    )


def draw_quality_against_time(path: str | os.PathLike, rows: Sequence[dict]) -> None:
    """Draw the gain in PSNR over the seconds to train and to infer a case, one panel per table, one point per method.

    A method that loses more than 3 dB is drawn at the lower edge, with its value in the legend.

    Args:
        path: the PNG to write.
        rows: as for :func:`write_overview`.
    """
    tables = list(dict.fromkeys(row["table"] for row in rows))
    across = min(len(tables), 2)
    down = math.ceil(len(tables) / across)
    figure = Figure(figsize=(6.5 * across, 4.5 * down), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across)).ravel()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    markers, colours = "osD^v<>Pph*X", colormaps["tab20"].colors  # type: ignore[attr-defined]
    for panel, table in zip(panels, tables, strict=False):
        for row in (row for row in rows if row["table"] == table):
            number = methods.index(row["method"])
            seconds = np.nansum([row["training_seconds"], row["seconds"]])
            gain = row["psnr"] - row["cubic_psnr"]
            beyond = f" ({gain:+.1f} dB)" if gain < _LOWEST else ""
            label = {"label": row["method"] + beyond, "color": colours[number % 20], "marker": markers[number % 12]}
            spread = row["psnr_sd"] if math.isfinite(row["psnr_sd"]) else None
            panel.errorbar(
                [max(seconds, 0.1)], [max(gain, _LOWEST)], yerr=spread, linestyle="none", markersize=6, **label
            )
        panel.axhline(0, color="0.6", linewidth=1, zorder=0)
        panel.set(xscale="log", title=table, xlabel="seconds to train and to infer one case")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_ylabel("gain in PSNR over cubic (dB)")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for panel in panels[len(tables) :]:
        panel.remove()
    save_figure(figure, path)


def _format_range(rows: Sequence[dict], key: str) -> str:
    """The lowest and the highest of the numbers above 0; a dash where there are none."""
    numbers = [row[key] for row in rows if (row[key] or 0) > 0]
    return " to ".join(dict.fromkeys(f"{end(numbers):.0f}" for end in (min, max))) if numbers else "-"


def _format_gain(row: dict | None) -> str:
    if row is None:
        return ""
    spread = f" +- {row['psnr_sd']:.2f}" if math.isfinite(row["psnr_sd"]) else ""
    # Adding 0 makes what rounds to -0 a plain 0.
    psnr, ssim = round(row["psnr"] - row["cubic_psnr"], 2) + 0.0, round(row["ssim"] - row["cubic_ssim"], 4) + 0.0
    mark = f", {row['trained']}" if row["trained"] in ("not trained", "below start") else ""
    return f"{psnr:+.2f}{spread}, {ssim:+.4f}{mark}"
