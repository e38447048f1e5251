"""``python -m common overview``: show tables of ``ablate`` side by side, with each method's gain and cost."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import RunsFailedError
from ..reports import describe_gain_over_start, describe_measurement
from ..reports.overview import draw_quality_against_time, list_tables, write_overview
from ..tables.merged import describe_row, list_unfinished, read_cost, read_rows


def print_overview(tables: str | Sequence[str], output_dir: str) -> None:
    """Print the methods of several tables side by side, and draw their gain against their time.

    Writes ``overview.csv``, one line for each method and table. Its columns are the numbers of people and cases, PSNR,
    SSIM, LPIPS, cubic interpolation of the method's own input, displacement, parameters of the network in inference,
    seconds and iterations of the training, seconds of inference for a case, whether anything was trained, and what the
    training knew. Writes ``overview.png``, the gain in PSNR against time. A row with an unfinished run is left out, and
    named at the end.
    Rows with the weights of another row, or by ``--trained`` of another table, have the training cost of those weights.

    Args:
        tables: folders of tables, the output_dir of ``ablate``, separated by commas; the last part names a table.
        output_dir: folder to write to.

    Raises:
        FileNotFoundError: when no ``ablate`` has written to a folder.
        FileExistsError: when ``output_dir`` has an overview of other tables.
        ValueError: when two folders end alike, nothing is done, or PSNR and SSIM are not on one scale in all.
        RunsFailedError: at the end, when runs are not done.
    """
    folders = [
        Path(os.path.abspath(name.strip())) for name in (tables.split(",") if isinstance(tables, str) else tables)
    ]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"--tables {','.join(map(str, folders))}: two folders end alike, and tables are called so.")
    rows, missing = _read_tables(folders)
    if not rows:
        raise ValueError(f"{', '.join(map(str, folders))}: no row is done.")
    if others := list_tables(output_dir) - set(names):
        raise FileExistsError(
            f"{output_dir} has an overview of other tables, {', '.join(sorted(others))}; name another folder."
        )
    print(write_overview(output_dir, rows))
    draw_quality_against_time(Path(output_dir) / "overview.png", rows)
    print(f"overview.csv and overview.png are in {output_dir}")
    if missing:
        listing = "\n  ".join(missing)
        raise RunsFailedError(f"not done, so that their rows are left out:\n  {listing}")


def _read_tables(folders: Sequence[Path]) -> tuple[list[dict], list[str]]:
    """Return the rows for :func:`~common.reports.overview.write_overview`, and the folders of unfinished runs."""
    rows, missing, cases = [], [], []
    for folder in folders:
        runs_by_row = read_rows(folder)
        if not runs_by_row:
            raise FileNotFoundError(f"{folder}: there is no rows.json; expected the folder of an ablate.")
        rows_of_table: dict[str, dict] = {}
        for name, runs in runs_by_row.items():
            left = list_unfinished(folder, runs)
            missing += left
            if not left:
                read = [json.loads((folder / run["folder"] / "table.json").read_text())["cases"] for run in runs]
                cases += [case for of_run in read for case in of_run]
                rows_of_table[name] = {"table": folder.name, "method": name, **_make_row(folder, runs, read)}
        for row in rows_of_table.values():
            after, start = (rows_of_table.get(row[key]) for key in ("weights", "start"))
            learned = describe_gain_over_start(after["psnr"], start["psnr"]) if after and start else None
            rows.append({**row, "trained": learned})
    describe_measurement(cases)
    return rows, missing


def _make_row(folder: Path, runs: Sequence[dict], read: Sequence[Sequence[dict]]) -> dict:
    by_seed: dict[int | None, list[dict]] = {}
    cubic = []
    for run, run_cases in zip(runs, read, strict=True):
        for case in run_cases:
            if case["method"] == "cubic":
                cubic.append(case)
            elif case["method"] != "bicubic":
                by_seed.setdefault(run["seed"], []).append(case)
    scores = {key: [_compute_mean(cases, key) for cases in by_seed.values()] for key in ("psnr", "ssim", "lpips")}
    shifts = [
        abs(_compute_mean([case for cases in by_seed.values() for case in cases], f"displacement_{a}")) for a in "xyz"
    ]
    several = len(by_seed) > 1
    people = {case.get("person") for cases in by_seed.values() for case in cases}
    costs = [read_cost(folder / run["folder"]) for run in runs]
    facts = describe_row(folder, runs)
    trainings = facts["trainings"].values()
    iterations = [training["iterations"] for training in trainings if training["iterations"]]
    seconds = [math.nan if training["seconds"] is None else training["seconds"] for training in trainings]
    return {
        **facts,
        "iterations": round(np.mean(iterations)) if iterations else None,
        "people": None if None in people else len(people),
        "cases": len({case["case"] for cases in by_seed.values() for case in cases}),
        "seeds": len(by_seed),
        **{key: float(np.mean(values)) for key, values in scores.items()},
        **{f"{key}_sd": float(np.std(scores[key], ddof=1)) if several else math.nan for key in ("psnr", "ssim")},
        "cubic_psnr": _compute_mean(cubic, "psnr"),
        "cubic_ssim": _compute_mean(cubic, "ssim"),
        "displacement": max(shifts),
        "parameters": max(cost.get("parameters", math.nan) for cost in costs),
        "training_seconds": float(np.mean(seconds or [0.0])),
        "seconds": float(np.mean([s for cost in costs for s in cost.get("seconds", {}).values()] or [math.nan])),
    }


def _compute_mean(cases: Sequence[dict], key: str) -> float:
    values = [case[key] for case in cases if case.get(key) is not None]
    return float(np.mean(values)) if values else math.nan
