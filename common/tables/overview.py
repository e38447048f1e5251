"""Scores and costs of each method of several tables, read from the files of their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..reports import measured_as, trained
from .execution import TRAINING_SECONDS, has_learned
from .merged import about, not_done, rows_in, weights_of


def overview_of(folders: Sequence[Path]) -> tuple[list[dict], list[str]]:
    """The rows of several tables, each called by its folder's name, for :func:`common.reports.write_overview`.

    Returns:
        The rows, and the folders of the runs that are not done, whose rows are left out.

    Raises:
        FileNotFoundError: when a folder has no ``rows.json``.
        ValueError: when PSNR and SSIM are not on one scale in all tables.
    """
    rows, missing, cases = [], [], []
    for folder in folders:
        runs_by_row = rows_in(folder)
        if not runs_by_row:
            raise FileNotFoundError(f"{folder}: there is no rows.json; expected the folder of an ablate.")
        own: dict[str, dict] = {}
        for name, runs in runs_by_row.items():
            left = not_done(folder, runs)
            missing += left
            if not left:
                read = [json.loads((folder / run["folder"] / "table.json").read_text())["cases"] for run in runs]
                cases += [case for of_run in read for case in of_run]
                own[name] = {"table": folder.name, "method": name, **_row(folder, runs, read)}
        for row in own.values():
            after, start = (own.get(row[key]) for key in ("weights", "start"))
            learned = trained(after["psnr"], start["psnr"]) if after and start else None
            rows.append({**{k: v for k, v in row.items() if k not in ("weights", "start")}, "trained": learned})
    measured_as(cases)
    return rows, missing


def _row(folder: Path, runs: Sequence[dict], read: Sequence[Sequence[dict]]) -> dict:
    by_seed: dict[int | None, list[dict]] = {}
    cubic, training = [], []
    costs: list[Any] = []
    for run, of_run in zip(runs, read, strict=True):
        for case in of_run:
            if case["method"] == "cubic":
                cubic.append(case)
            elif case["method"] != "bicubic":
                by_seed.setdefault(run["seed"], []).append(case)
        cost = folder / run["folder"] / "cost.json"
        costs.append(json.loads(cost.read_text()) if cost.is_file() else {"parameters": math.nan, "seconds": {}})
        weights = weights_of(folder, run)
        # If nothing was learned, the seconds are only those of a start.
        training.append(_total(weights / TRAINING_SECONDS) if weights and has_learned(weights) else 0.0)
    scores = {key: [_mean(cases, key) for cases in by_seed.values()] for key in ("psnr", "ssim", "lpips")}
    shifts = [abs(_mean([case for cases in by_seed.values() for case in cases], f"displacement_{a}")) for a in "xyz"]
    several = len(by_seed) > 1
    return {
        **about(folder, runs),
        "cases": len({case["case"] for cases in by_seed.values() for case in cases}),
        "seeds": len(by_seed),
        **{key: float(np.mean(values)) for key, values in scores.items()},
        **{f"{key}_sd": float(np.std(scores[key], ddof=1)) if several else math.nan for key in ("psnr", "ssim")},
        "cubic_psnr": _mean(cubic, "psnr"),
        "cubic_ssim": _mean(cubic, "ssim"),
        "displacement": max(shifts),
        "parameters": max(cost["parameters"] for cost in costs),
        # Per training: the runs of a pool are summed, and seeds are averaged.
        "training_seconds": float(np.sum(training)) / len(by_seed),
        "seconds": float(np.mean([second for cost in costs for second in cost["seconds"].values()] or [math.nan])),
    }


def _mean(cases: Sequence[dict], key: str) -> float:
    values = [case[key] for case in cases if case.get(key) is not None]
    return float(np.mean(values)) if values else math.nan


def _total(path: Path) -> float:
    """The sum of a file's numbers, NaN where there is none."""
    return sum(map(float, path.read_text().split())) if path.is_file() else math.nan
