"""Results over all cases: the table, its box plots, and the table and pictures of several runs."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from ..io.files import replacing
from .case import error, panels_figure, panels_profile
from .files import escape, save_figure
from .planes import load_panels
from .t_tests import paired_t_tests, t_tests_in_words
from .text import aligned

PLANES_FILE = "{}_planes.npz"
"""A case's planes from an evaluation, for its picture with other methods."""
BASELINES = ("cubic", "bicubic")
"""Rows of a table that are an interpolated input, not a method."""
RESERVED = ("LR", "guide", *BASELINES, "HR")
"""Columns of a picture that are not a method."""
TOLERANCE = 1e-4
"""In dB: interpolations of one LR scan differ by the axis order of the bundles."""

METRICS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "displacement_x": ("shift x (voxel)", 2),
    "displacement_y": ("shift y (voxel)", 2),
    "displacement_z": ("shift z (voxel)", 2),
}
"""The columns of a table after ``case`` and ``method``: their titles and decimals."""
MEASURED = {"data_range": ("percentile", "maximum"), "score_over": ("volume", "slices", "centre_slice")}
"""Options of how PSNR and SSIM are taken, as :class:`common.handlers.EvaluationReport` explains; defaults first."""
OPTIONAL = {"brisque": ("BRISQUE", 1), "lpips": ("LPIPS", 4)}
"""Optional columns of a table."""

LABELS = ("iterations", "trained", "knew")
"""Optional columns after the scores: how long and from what a row was trained, and whether it learned anything."""
_UNTRAINED = 0.05  # dB, by choice; standard deviations over three seeds were 0.01 to 0.23 in the tables so far

_BOXED = 3  # fewer cases have no quartiles

_Pool: TypeAlias = Sequence["str | os.PathLike"]
_Folders: TypeAlias = "_Pool | Mapping[int | None, _Pool]"  # of an entry; by seed if it has several
_Found: TypeAlias = "dict[str, tuple[Path, dict[str, dict]]]"  # by case: the run's folder, and its rows by method


def _metrics(rows: Sequence[Mapping]) -> dict[str, tuple[str, int]]:
    return METRICS | {name: column for name, column in OPTIONAL.items() if any(name in row for row in rows)}


def trained(psnr: float, start: float) -> str:
    """Return ``not trained`` if the mean PSNR is within 0.05 dB of the untrained start, ``below start`` if lower.

    Otherwise return ``yes``.

    Args:
        psnr, start: in dB.
    """
    if abs(psnr - start) <= _UNTRAINED:
        return "not trained"
    return "yes" if psnr > start else "below start"


def _values(rows: Sequence[Mapping], method: str, metric: str) -> np.ndarray:
    """Return the values to average: a metric's defined values by case, or with seeds the mean of each seed."""
    by_seed: dict[int | None, list[float]] = {}
    for row in rows:
        if row["method"] == method and not math.isnan(value := float(row[metric])):
            by_seed.setdefault(row.get("seed"), []).append(value)
    if not _seeds(rows):
        return np.array(by_seed.get(None, []))
    return np.array([np.mean(values) for values in by_seed.values()])


def _seeds(rows: Sequence[Mapping]) -> list[int]:
    """Return the seeds of the rows. None, which means all seeds, is left out."""
    return list(dict.fromkeys(row["seed"] for row in rows if row.get("seed") is not None))


def measured_as(rows: Sequence[Mapping]) -> dict[str, str]:
    """Return how PSNR and SSIM are taken in all rows, if not by default.

    Raises:
        ValueError: when rows differ in it.
    """
    found = {name: list(dict.fromkeys(row.get(name, values[0]) for row in rows)) for name, values in MEASURED.items()}
    for name, values in found.items():
        if len(values) > 1:
            raise ValueError(
                f"PSNR and SSIM are not on one scale: {name} is {' in some rows and '.join(values)} in others; "
                "evaluate all runs with the same."
            )
    return {name: value for name, (value,) in found.items() if value != MEASURED[name][0]}


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def write_table(output_dir: str | os.PathLike, rows: Sequence[Mapping], against: str | None = None) -> str:
    """Write the results as ``table.csv`` (by case) and ``table.json`` (by case, and mean and sd by method).

    Cases with a NaN metric are left out of its mean and of its ``n``. The standard deviation is that of the sample
    (n - 1). NaN and infinity are null in JSON.

    If rows have seeds, ``mean`` and ``sd`` are over the seeds, with each seed's mean over its cases, and ``n`` is the
    number of seeds. The spread is then that of the training, not of the cases.

    Args:
        output_dir: the folder to write to.
        rows: one mapping for each case and method with ``case``, ``method``, ``psnr`` (dB), ``ssim``, and
            ``displacement_x``, ``displacement_y``, ``displacement_z`` (HR voxels); ``brisque`` and
            ``lpips`` each in all or in none. ``data_range`` and ``score_over`` say how PSNR and SSIM are taken; the
            table has them if they are not the defaults. ``seed``, in all or in none, is that of the training, and
            None for rows that do not depend on it. ``iterations`` of the training, whether it ``trained`` anything
            (:func:`trained`) and what it ``knew`` are the same in all rows of a method. A column that no row has is
            left out.
        against: a method to compare the others with by a paired t-test of PSNR, SSIM, BRISQUE and LPIPS, over two or
            more shared cases. The mean difference and p, two-sided and corrected over the methods by Holm's method,
            go to ``table.json`` as ``paired_t_test``. If there are several seeds, a case's value is their mean. If
            rows have ``input``, which numbers the LR scans of a case, only cases with the same input are shared.

    Returns:
        The table of mean +- sd by method, in order of first appearance, to print; of one case its value.

    Raises:
        ValueError: When there are no rows, one lacks a column, PSNR and SSIM are not taken alike in all, or no row is
            of the method ``against``.
    """
    metrics = _metrics(rows)
    if not rows:
        raise ValueError("write_table needs at least one row.")
    measured = measured_as(rows)
    keys = ["case", "method", *measured, *(["seed"] if _seeds(rows) else [])]
    labels = [label for label in LABELS if any(row.get(label) is not None for row in rows)]
    columns = [*keys, *metrics]
    for row in rows:
        if missing := [column for column in columns if column not in row]:
            raise ValueError(f"The row of case {row.get('case')!r} lacks {', '.join(missing)}.")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary: dict[str, Any] = {}
    lines = [["method", "cases", *(title for title, _ in metrics.values()), *labels]]
    for method in methods:
        summary[method] = {}
        line = [method, str(len({row["case"] for row in rows if row["method"] == method}))]
        for metric, (_, decimals) in metrics.items():
            values = _values(rows, method, metric)
            mean = float(np.mean(values)) if values.size else math.nan
            sd = float(np.std(values, ddof=1)) if values.size > 1 and np.isfinite(values).all() else math.nan
            summary[method][metric] = {"mean": _number(mean), "sd": _number(sd), "n": values.size}
            spread = "" if math.isnan(sd) else f" +- {sd:.{decimals}f}"
            line.append("-" if math.isnan(mean) else f"{round(mean, decimals) + 0.0:.{decimals}f}{spread}")
        own = next(row for row in rows if row["method"] == method)
        lines.append([*line, *("-" if own.get(label) is None else str(own[label]) for label in labels)])

    with (
        replacing(Path(output_dir) / "table.csv") as path,
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, [*columns, *labels], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    cases = [
        {c: row[c] if c in keys else _number(float(row[c])) for c in columns} | {c: row.get(c) for c in labels}
        for row in rows
    ]
    scores = [score for score in metrics if not score.startswith("displacement")]
    tests = {} if against is None else paired_t_tests(rows, against, scores)
    content = {"cases": cases, "summary": summary} | ({"paired_t_test": tests} if tests else {})
    with replacing(Path(output_dir) / "table.json") as path:
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    text = aligned(lines)
    if "trained" in labels:
        text += f"\nnot trained: mean PSNR within {_UNTRAINED} dB of that of the untrained start; below start: lower"
    if measured:
        said = ", ".join(f"{name} {value}" for name, value in measured.items())
        text += f"\nPSNR and SSIM with {said}: not comparable with tables that do not say so"
    if seeds := _seeds(rows):
        text += f"\nmean over the cases; +- is the standard deviation over {len(seeds)} seeds"
    if against is not None:
        text += t_tests_in_words(tests, metrics)
    return text


def box_plots(path: str | os.PathLike, rows: Sequence[Mapping]) -> None:
    """Draw the table's metrics over the cases by method: a point for each case, and a box if there are three.

    Grey lines join the points of one case. They show a gain in each case even if cases differ more than methods.
    Infinite and undefined values are not drawn. With several seeds, a point is the mean of its case.

    Args:
        path: the PNG to write.
        rows: as for :func:`write_table`.
    """
    metrics = _metrics(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    seeds = [None, *_seeds(rows)]
    table = np.full((len(seeds), len(metrics), len(methods), len(cases)), np.nan)
    for row in rows:
        seed, method, case = seeds.index(row.get("seed")), methods.index(row["method"]), cases.index(row["case"])
        table[seed, :, method, case] = [float(row[metric]) for metric in metrics]
    table[~np.isfinite(table)] = np.nan
    counts = np.isfinite(table).sum(axis=0)
    table = np.where(counts, np.nansum(table, axis=0) / np.maximum(counts, 1), np.nan)
    figure = Figure(figsize=(2.0 + len(metrics) * (1.2 + 0.4 * len(methods)), 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(metrics))
    # Points side by side, by case, the same in every panel and run.
    spread = np.linspace(-0.12, 0.12, len(cases)) if len(cases) > 1 else np.zeros(1)
    colours = [f"C{i}" for i in range(len(methods))]
    shifts = [panel for panel, metric in zip(panels, metrics, strict=True) if metric.startswith("displacement")]
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
        panel.set_title(metrics[metric][0], fontsize=10)
        slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(methods) > 2 else {}
        panel.set_xticks(range(len(methods)), map(escape, methods), **slanted)
        panel.grid(axis="y", alpha=0.3)
    # One scale for the three shifts, with room for 0.1 voxel, so that nothing small looks large.
    limit = 1.1 * max(0.1, float(np.nanmax(np.abs(table[2:5]), initial=0.0)))
    for panel in shifts:
        panel.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        panel.set_ylim(-limit, limit)
    save_figure(figure, path)


def merge_tables(
    output_dir: str | os.PathLike,
    folders_by_name: Mapping[str, _Folders],
    against: str | None = None,
    about: Mapping[str, Mapping] | None = None,
) -> str:
    """Join the tables of several runs into one: ``table.csv``, ``table.json`` and ``boxplots.png``.

    The method of each run takes the name of its entry. An entry's folders are pooled, for example folds of a
    cross-validation. Each method comes below the interpolation of its own input. An entry whose cubic rows differ from
    those of all earlier entries was tested on another LR or on other cases; its cubic rows are named
    ``cubic (<entry>)``. A score that only some runs have is NaN for the others.

    Args:
        output_dir: the folder to write to.
        folders_by_name: the folders with a ``table.json`` of :func:`write_table`, of one method and interpolation, by
            the method's name in the joint table. A null value there is NaN here. For several trainings of a method,
            the folders of each by its seed; then all entries have the same seeds.
        against: as for :func:`write_table`.
        about: ``iterations`` and ``knew`` of entries, as for :func:`write_table`, and ``weights`` and ``start``, the
            entry that trained them and its untrained start. Their mean PSNR decides whether it trained anything.

    Returns:
        The table of mean +- sd by method, to print, over the cases or, with seeds, over these; and which methods are
        not compared on equal terms.

    Raises:
        FileNotFoundError: when a folder has no ``table.json``.
        ValueError: when a table has not one method and interpolation, an entry has a name of ``RESERVED``, a case is
            in two folders of one entry and seed, or there are no entries.
    """
    runs = _runs(folders_by_name)
    groups = _by_input({name: _flat(seeds) for name, seeds in runs.items()})
    rows: list[dict] = []
    scans: dict[str, list[list[float]]] = {}
    for number, entries in enumerate(groups):
        first = next(iter(entries))
        interpolated = _interpolated(runs[first])
        given = {case: _input(scans, case, interpolated) for case in {row["case"] for row in interpolated}}
        interpolated = [{**row, "input": given[row["case"]]} for row in interpolated]
        for baseline in BASELINES:
            name = baseline if number == 0 else f"{baseline} ({first})"
            rows += [{**row, "method": name} for row in interpolated if row["method"] == baseline]
        for name, cases in entries.items():
            own = [row for _, found in cases.values() for row in found.values() if row["method"] not in BASELINES]
            rows += [{**row, "method": name, "input": given.get(row["case"])} for row in own]
    rows = [{**{score: math.nan for score in OPTIONAL if any(score in r for r in rows)}, **row} for row in rows]
    for name, known in (about or {}).items():
        compared = [method for method in (known["weights"], known["start"]) if method in runs]
        means = [np.mean(_values(rows, method, "psnr")) for method in compared]
        learned = trained(*means) if len(means) == 2 else None
        labels = {"iterations": known["iterations"], "trained": learned, "knew": known["knew"]}
        rows = [{**row, **labels} if row["method"] == name else row for row in rows]
    text = write_table(output_dir, rows, against)
    box_plots(Path(output_dir) / "boxplots.png", rows)
    if len(groups) > 1:
        listing = "\n  ".join("; ".join(entries) for entries in groups)
        text += (
            "\nThese groups are not compared on equal terms, because their LR inputs or their test cases differ:"
            f"\n  {listing}\nEach is below the cubic row of its own input. --scale and --degradation, set for all "
            "rows, make inputs equal."
        )
    if changing := [name for name, seeds in runs.items() if not _same_input(seeds)]:
        text += (
            f"\nThe LR inputs of {'; '.join(changing)} change with the seed, and add to the spread after +-. To avoid "
            "this, give the degradation of the scans its own seed in the configs, not @seed."
        )
    return text


def merge_pictures(output_dir: str | os.PathLike, folders_by_name: Mapping[str, _Folders]) -> str:
    """Draw each case of several runs as one picture, ``<case>.png``: LR, cubic, a column for each method, and HR.

    ``<case>_profile.png`` has their intensities along one line (:func:`common.reports.panels_profile`).

    The columns are those that :class:`common.handlers.EvaluationReport` drew of the runs, through the same planes, in
    one grey window and with their errors on one colour scale. As in :func:`merge_tables`, each method comes after its
    LR input and the interpolation of this input.

    Args:
        output_dir: the folder to write to.
        folders_by_name: as for :func:`merge_tables`. Runs without ``<case>_planes.npz`` are left out. If there are
            several seeds, the first is drawn.

    Returns:
        What was drawn and what was left out, to print.

    Raises:
        FileNotFoundError, ValueError: as :func:`merge_tables`.
    """
    runs: Any = {name: next(iter(seeds.items())) for name, seeds in _runs(folders_by_name).items()}
    seed = next(iter(runs.values()))[0] if runs else None
    runs = {name: cases for name, (_, cases) in runs.items()}
    missing: dict[str, Any] = {}
    drawn = 0
    for case in dict.fromkeys(case for cases in runs.values() for case in cases):
        tested = {name: {case: cases[case]} for name, cases in runs.items() if case in cases}
        for name in [n for n, found in tested.items() if not (found[case][0] / PLANES_FILE.format(case)).is_file()]:
            missing[name] = tested.pop(name)
        images, errors, scores = {}, {}, {}
        truth: Any = None
        for entries in _by_input(tested):
            first = next(iter(entries))
            # The plain titles are those of the plain rows in the table: of the first entry's input.
            own = "" if first == next(iter(runs)) else f" ({first})"
            for name, found in entries.items():
                folder, rows = found[case]
                panels = load_panels(folder / PLANES_FILE.format(case))
                truth = truth or panels["HR"]
                for panel, image in panels.items():
                    if panel == "HR" or (panel in ("LR", *BASELINES) and name != first):
                        continue
                    title = f"{panel}{own}" if panel in ("LR", *BASELINES) else name
                    images[title] = image
                    if panel != "LR":
                        errors[title], scores[title] = error(image, panels["HR"]), rows[panel]
        if images:
            images["HR"] = truth
            panels_figure(Path(output_dir) / f"{case}.png", case, images, errors, scores)
            panels_profile(Path(output_dir) / f"{case}_profile.png", case, images)
            drawn += 1
    text = f"pictures: {drawn}, one for each case, with a column for each method, and as many line profiles"
    text += "" if seed is None else f", of seed {seed}"
    if missing:
        text += f"; none for {'; '.join(missing)}, whose runs have left no {PLANES_FILE.format('<case>')}"
    return text


def _runs(folders_by_name: Mapping[str, _Folders]) -> dict[str, dict[int | None, _Found]]:
    """Return what is found by entry and seed; the seed is None if there are none."""
    runs: dict[str, dict[int | None, _Found]] = {}
    for name, folders in folders_by_name.items():
        if name in RESERVED:
            raise ValueError(f"an entry is named '{name}', a name that no method may have; give it another name.")
        by_seed = folders if isinstance(folders, Mapping) else {None: folders}
        runs[name] = {seed: _pooled(name, seed, map(Path, pool)) for seed, pool in by_seed.items()}
    return runs


def _pooled(name: str, seed: int | None, folders: Iterable[Path]) -> _Found:
    """Return the cases of an entry's folders, whose rows have the seed if there is one."""
    cases: _Found = {}
    for folder in folders:
        for row in _cases(folder):
            place, rows = cases.setdefault(row["case"], (folder, {}))
            if place != folder:
                raise ValueError(
                    f"{name}: the case {row['case']} was tested in {place} and again in {folder}; runs that are "
                    "pooled must not share test cases."
                )
            rows[row["method"]] = row if seed is None else {**row, "seed": seed}
    return cases


def _flat(seeds: Mapping[int | None, _Found]) -> dict[tuple[int | None, str], tuple[Path, dict[str, dict]]]:
    """The cases of all seeds of an entry."""
    return {(seed, case): found for seed, cases in seeds.items() for case, found in cases.items()}


def _same_input(seeds: Mapping[int | None, _Found]) -> bool:
    """Whether all seeds of an entry were tested on the same LR, as is the case if it does not depend on the seed."""
    return len(_by_input(seeds)) == 1


def _interpolated(seeds: Mapping[int | None, _Found]) -> list[dict]:
    """Return the rows of an entry's interpolation, once and without a seed if all seeds have the same."""
    once = None not in seeds and _same_input(seeds)
    taken = dict(list(seeds.items())[:1]) if once else seeds
    rows = [row for _, found in _flat(taken).values() for row in found.values() if row["method"] in BASELINES]
    return [{**row, "seed": None} for row in rows] if once else rows


def _by_input(runs: Mapping[Any, Mapping[Any, tuple[Path, Mapping[str, dict]]]]) -> list[dict]:
    """Group the entries that were tested on the same LR of the same cases, found by their interpolation."""
    groups: list[tuple[dict, dict]] = []
    for name, cases in runs.items():
        found = {(c, m): row["psnr"] for c, (_, rows) in cases.items() for m, row in rows.items() if m in BASELINES}
        for known, entries in groups:
            if known.keys() == found.keys() and not any(abs(found[key] - known[key]) > TOLERANCE for key in found):
                entries[name] = cases
                break
        else:
            groups.append((found, {name: cases}))
    return [entries for _, entries in groups]


def _input(scans: dict[str, list[list[float]]], case: str, interpolated: Sequence[Mapping]) -> int:
    """Return the number of the LR scan of a case that was interpolated; a new scan is added to the known ones."""
    found = [row["psnr"] for row in interpolated if row["case"] == case]
    known = scans.setdefault(case, [])
    for number, psnr in enumerate(known):
        if len(psnr) == len(found) and not any(abs(a - b) > TOLERANCE for a, b in zip(psnr, found, strict=True)):
            return number
    known.append(found)
    return len(known) - 1


def _cases(folder: Path) -> list[dict]:
    """The rows of a folder's ``table.json``, of interpolation and of one method."""
    path = folder / "table.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no table.json in {folder}; evaluate the run that should have written it.")
    cases = [
        {key: math.nan if value is None else value for key, value in row.items()}
        for row in json.loads(path.read_text())["cases"]
    ]
    methods: list[Any] = list(dict.fromkeys(row["method"] for row in cases if row["method"] not in BASELINES))
    if len(methods) != 1:
        raise ValueError(
            f"{path}: expected the rows of one method and cubic, found {', '.join(methods) or 'none'}; evaluate the "
            "run without --compare_with."
        )
    return cases
