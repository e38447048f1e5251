"""The table and the pictures of several runs, joined."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...metrics.metric import Metric
from ...reports.case import compute_error_panel, draw_panels
from ...reports.cohort import describe_gain_over_start, draw_box_plots, select_values, write_table
from ...reports.evaluated import METRICS
from ...reports.files import save_figure
from ...reports.planes import PLANES_FILE, load_panels

"""A case's planes from an evaluation, for its picture with other methods."""
BASELINES = ("cubic", "bicubic")
"""Rows of a table that are an interpolated input, not a method."""
RESERVED = ("LR", "guide", *BASELINES, "HR")
"""Columns of a picture that are not a method."""
TOLERANCE = 1e-4
"""In dB: interpolations of one LR scan differ by the axis order of the bundles."""

_Folders: TypeAlias = "Sequence[str | os.PathLike]"  # of an entry
_Cases: TypeAlias = "Mapping[Any, tuple[Path, dict[str, dict]]]"  # by case: the run's folder, and its rows by method


def merge_tables(
    output_dir: str | os.PathLike,
    folders_by_name: Mapping[str, _Folders],
    descriptions: Mapping[str, Mapping] | None = None,
) -> str:
    """Join the tables of several runs into one: ``table.csv``, ``table.json`` and ``boxplots.png``.

    An entry's folders are pooled, for example folds of a cross-validation. Each method comes below the interpolation
    of its own input. If an entry's cubic rows differ from those of all earlier entries, its LR or its cases differ;
    its cubic rows are named ``cubic (<entry>)``. A score that only some runs have is NaN for the others.

    Args:
        output_dir: the folder to write to.
        folders_by_name: by the method's name in the joint table, the folders with a ``table.json`` of
            :func:`write_table`, of one method and interpolation.
        descriptions: of entries, as ``common.lab.tables.merged`` makes them. The mean PSNR of ``weights`` and
            ``start`` decides whether the entry learned anything.

    Returns:
        The table of :func:`write_table`, and which methods are not compared on equal terms.
    """
    runs = _read_runs(folders_by_name)
    groups = _group_by_input(runs)
    rows: list[dict] = []
    for number, entries in enumerate(groups):
        first = next(iter(entries))
        for baseline in BASELINES:
            name = baseline if number == 0 else f"{baseline} ({first})"
            rows += [{**row, "method": name} for row in _list_rows(runs[first]) if row["method"] == baseline]
        for name, cases in entries.items():
            rows += [{**row, "method": name} for row in _list_rows(cases) if row["method"] not in BASELINES]
    metrics = METRICS | _read_metrics(folders_by_name)
    rows = [{**{name: math.nan for name in metrics if any(name in r for r in rows)}, **row} for row in rows]
    for name, known in (descriptions or {}).items():
        compared = [method for method in (known["weights"], known["start"]) if method in runs]
        means = [np.mean(select_values(rows, method, "psnr")) for method in compared]
        learned = describe_gain_over_start(*means) if len(means) == 2 else None
        for row in (row for row in rows if row["method"] == name):
            row |= {"trained": learned, "knew": known["knew"], "published": known["published"], **known["training"]}
    text = write_table(output_dir, rows, metrics)
    draw_box_plots(Path(output_dir) / "boxplots.png", rows, metrics)
    if len(groups) > 1:
        listing = "\n  ".join("; ".join(entries) for entries in groups)
        text += (
            "\nThese groups are not compared on equal terms, because their LR inputs or their test cases differ:"
            f"\n  {listing}\nEach is below the cubic row of its own input. --scale and --degradation, set for all "
            "rows, make inputs equal."
        )
    return text


def merge_pictures(output_dir: str | os.PathLike, folders_by_name: Mapping[str, _Folders]) -> str:
    """Draw each case of several runs as one picture, ``<case>.png``: LR, cubic, a column for each method, and HR.

    The planes are those that :class:`common.handlers.EvaluationReport` left. As in :func:`merge_tables`, each method
    comes after its LR input and the interpolation of this input.

    Args:
        output_dir: the folder to write to.
        folders_by_name: as for :func:`merge_tables`. Runs without ``<case>_planes.npz`` are left out.

    Returns:
        What was drawn and what was left out, to print.
    """
    runs = _read_runs(folders_by_name)
    missing: dict[str, Any] = {}
    count = 0
    for case in dict.fromkeys(case for cases in runs.values() for case in cases):
        tested = {name: {case: cases[case]} for name, cases in runs.items() if case in cases}
        for name in [n for n, cases in tested.items() if not (cases[case][0] / PLANES_FILE.format(case)).is_file()]:
            missing[name] = tested.pop(name)
        images, errors, scores = {}, {}, {}
        truth: Any = None
        for entries in _group_by_input(tested):
            first = next(iter(entries))
            # The plain titles are those of the plain rows in the table: of the first entry's input.
            suffix = "" if first == next(iter(runs)) else f" ({first})"
            for name, cases in entries.items():
                folder, rows = cases[case]
                panels = load_panels(folder / PLANES_FILE.format(case))
                truth = truth or panels["HR"]
                for panel, image in panels.items():
                    if panel == "HR" or (panel in ("LR", *BASELINES) and name != first):
                        continue
                    title = f"{panel}{suffix}" if panel in ("LR", *BASELINES) else name
                    images[title] = image
                    if panel != "LR":
                        errors[title], scores[title] = compute_error_panel(image, panels["HR"]), rows[panel]
        if images:
            images["HR"] = truth
            save_figure(draw_panels(case, images, errors, scores), Path(output_dir) / f"{case}.png")
            count += 1
    text = f"pictures: {count}, one for each case, with a column for each method"
    if missing:
        text += f"; none for {'; '.join(missing)}, whose runs have left no {PLANES_FILE.format('<case>')}"
    return text


def _read_runs(folders_by_name: Mapping[str, _Folders]) -> dict[str, dict[str, Any]]:
    """Read the cases of each entry from the folders that it pools."""
    runs: dict[str, dict[str, Any]] = {}
    for name, folders in folders_by_name.items():
        if name in RESERVED:
            raise ValueError(f"an entry is named '{name}', a name that no method may have; give it another name.")
        cases = runs[name] = {}
        for folder in map(Path, folders):
            for row in _read_rows(folder):
                place, rows = cases.setdefault(row["case"], (folder, {}))
                if place != folder:
                    raise ValueError(
                        f"{name}: the case {row['case']} was tested in {place} and again in {folder}; runs that are "
                        "pooled must not share test cases."
                    )
                rows[row["method"]] = row
    return runs


def _read_metrics(folders_by_name: Mapping[str, _Folders]) -> dict[str, Metric]:
    """The metrics that not every table has."""
    tables = [Path(folder) / "table.json" for folders in folders_by_name.values() for folder in folders]
    described = (json.loads(table.read_text()).get("metrics", {}) for table in tables)
    return {name: Metric(None, **record) for own in described for name, record in own.items()}


def _list_rows(cases: _Cases) -> list[dict]:
    return [row for _, rows in cases.values() for row in rows.values()]


def _group_by_input(runs: Mapping[Any, _Cases]) -> list[dict]:
    """Group the entries that were tested on the same LR of the same cases, found by their interpolation."""
    inputs: list[dict] = []
    groups: list[dict] = []
    for name, cases in runs.items():
        scores = {(c, m): row["psnr"] for c, (_, rows) in cases.items() for m, row in rows.items() if m in BASELINES}
        number = _find_alike(inputs, scores)
        if number == len(groups):
            groups.append({})
        groups[number][name] = cases
    return groups


def _find_alike(groups: list[dict], scores: dict) -> int:
    """Return the number of known PSNRs that are alike; new ones are added to the known."""
    for number, psnr in enumerate(groups):
        if psnr.keys() == scores.keys() and not any(abs(scores[key] - psnr[key]) > TOLERANCE for key in scores):
            return number
    groups.append(scores)
    return len(groups) - 1


def _read_rows(folder: Path) -> list[dict]:
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
