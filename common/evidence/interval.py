"""Whether the interval of a result holds its errors; and its calibration on people with known HR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..metrics.brightness_classes import divide_by_brightness
from ..metrics.interval import calibrate_interval, draw_scores, measure_coverage, measure_sparsification
from ..saved_weights import write_overlay
from ..weights import read_overlay
from .judgement import Judgement, Question
from .person import Person


def judge_interval(person: Person) -> Judgement:
    """Coverage of the first result's interval, its width, and how well it sorts errors, by brightness of the result."""
    assert person.hr is not None and person.interval is not None
    result = person.results[0]
    error, width = result.voxels - person.hr.voxels, person.interval.voxels
    regions = divide_by_brightness(result.voxels)
    rows = []
    for name, mask in {"tissue": ~regions["air"], **regions}.items():
        if not mask.any():
            continue
        found = measure_sparsification(error[mask], width[mask])
        rows.append({
            "result": result.label,
            "region": name,
            "voxels": int(mask.sum()),
            "level": float(person.interval.metadata.get("Level", np.nan)),
            "coverage": measure_coverage(error[mask], width[mask]),
            "half_width": float(width[mask].mean()),
            "error": float(np.abs(error[mask]).mean()),
            **found,
        })  # fmt: skip
    return Judgement(rows)


def draw_intervals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Coverage of each person by region, and sparsification curves in tissue, over all persons."""
    from ..reports.interval import draw_coverage, draw_sparsification

    coverage: dict[str, list[float]] = {}
    for region in dict.fromkeys(row["region"] for row in rows):
        by_person: dict[str, list[float]] = {}
        for row in rows:
            if row["region"] == region:
                by_person.setdefault(row["person"], []).append(row["coverage"])
        coverage[region] = [float(np.mean(own)) for own in by_person.values()]
    tissue = [row for row in rows if row["region"] == "tissue"]
    curves = {name: np.array([row[name] for row in tissue]) for name in ("curve", "oracle")}
    return {
        "interval_coverage": draw_coverage(coverage),
        "interval_sparsification": draw_sparsification(tissue[0]["shares"], **curves),
    }


def calibrate_weights(people: Iterable[Person], overlay: str) -> str:
    """Calibrate the interval of weights on people with known HR, and write it into their overlay.

    Results of one person, also in several lines of the table, count as one person.

    Args:
        people: each with one result, the scan it was made of, and HR.
        overlay: the JSON next to the weights.

    Returns:
        A line that says what was found.
    """
    known = read_overlay(overlay)
    if known is None:
        raise FileNotFoundError(f"judge: --calibrate {overlay}: there is no such file; name the JSON of the weights.")
    scores: dict[str, list[dict[str, np.ndarray]]] = {}
    for person in people:
        if person.scan is None or person.hr is None:
            raise ValueError(f"judge: --calibrate: {person.name} has no scan or no hr; give both for each person.")
        for result in person.results:
            factors = (person.scan.spacing / result.spacing).tolist()
            found = draw_scores(result.voxels, person.hr.voxels, person.scan.voxels, factors)
            scores.setdefault(person.name, []).append(found)
    joined = [{name: np.concatenate([each[name] for each in found]) for name in found[0]} for found in scores.values()]
    interval = calibrate_interval(joined)
    write_overlay(overlay, {**known, "interval": interval.describe()})
    number = interval.people
    least = interval.level * number / (number + 1)
    return (
        f"{Path(overlay).name} holds the interval of {interval.level:.0%} over {number} people. Over many new people "
        f"like these, the mean coverage is at least {least:.0%}, whatever the errors; that of one may be less."
    )


INTERVAL = Question(
    name="interval",
    question="Does the error bar hold?",
    columns={
        "region": "by the brightness of the result; tissue is all but air",
        "voxels": "number",
        "level": "coverage that the file states",
        "coverage": "share of the errors that are within the interval",
        "half_width": "mean, in the units of the result",
        "error": "mean absolute error, in the same units",
        "rank": "rank correlation of error and width (Spearman)",
        "gain": "error that goes when the widest intervals are left out: 1 as if errors were known, 0 by chance",
    },
    is_asked=lambda person: person.interval is not None and person.hr is not None,
    judge=judge_interval,
    draw=draw_intervals,
    by=("region",),
)
