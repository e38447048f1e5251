"""Whether the interval of a result holds its errors; and its calibration on people with known HR."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from ...metrics.brightness_classes import REGIONS, divide_by_brightness
from ...metrics.interval import Interval, estimate_error_scale
from ...program.volume import Volume, check_grid, check_on_scan
from ...weights.loading import read_overlay
from ...weights.saving import write_overlay
from .assessment import Assessment, Judgement
from .person import Person

_DRAWN = 50_000  # voxels of a region; more add nothing
_SHARES = np.linspace(0, 0.95, 20)  # of the voxels, those with the widest intervals, that are left out in turn


class IntervalCoverage(Assessment):
    """The first result's interval: its coverage, its width, and how well it sorts errors, by brightness."""

    name = "interval"
    question = "Does the error bar hold?"
    columns: ClassVar[Mapping[str, str]] = {
        "region": "by the brightness of the result; tissue is all but air",
        "voxels": "number",
        "level": "coverage that the file states",
        "coverage": "share of the errors that are within the interval",
        "half_width": "mean, in the units of the result",
        "error": "mean absolute error, in the same units",
        "rank": "rank correlation of error and width (Spearman)",
        "sorted": "error that goes when the widest intervals are left out: 1 as if errors were known, 0 by chance",
    }
    asked_by = ("interval",)
    by = ("region",)

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person = person
        self.interval: Volume = given["interval"]
        if person.hr is None:
            raise ValueError(f"judge: --interval {self.interval.name} is compared with errors; give --hr FILE with it.")
        if len(person.results) > 1:
            raise ValueError(f"judge: --interval {self.interval.name} is of one result; name that result alone.")
        self.hr = person.hr
        check_grid(self.interval, person.results[0], "--interval")

    def judge(self) -> Judgement:
        result = self.person.results[0]
        error, width = result.voxels - self.hr.voxels, self.interval.voxels
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
                "level": float(self.interval.metadata.get("Level", np.nan)),
                "coverage": float(np.mean(np.abs(error[mask]) <= width[mask])),
                "half_width": float(width[mask].mean()),
                "error": float(np.abs(error[mask]).mean()),
                **found,
            })  # fmt: skip
        return Judgement(rows)

    @staticmethod
    def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            shares[row["region"]][row["person"]].append(row["coverage"])
        coverage = {name: [float(np.mean(own)) for own in people.values()] for name, people in shares.items()}
        tissue = [row for row in rows if row["region"] == "tissue"]
        curves = {name: np.array([row[name] for row in tissue]) for name in ("curve", "oracle")}
        return {
            "interval_coverage": draw_coverage(coverage),
            "interval_sparsification": draw_sparsification(tissue[0]["shares"], **curves),
        }


class Calibration:
    """Calibrates the interval of weights on people with known HR, and writes it into their overlay.

    Results of one person, also in several lines of the table, count as one person.

    Args:
        overlay: the JSON next to the weights.
    """

    def __init__(self, overlay: str) -> None:
        known = read_overlay(overlay)
        if known is None:
            raise FileNotFoundError(
                f"judge: --calibrate {overlay}: there is no such file; name the JSON of the weights."
            )
        self.overlay, self.known = overlay, known
        self.scores: dict[str, list[dict[str, np.ndarray]]] = {}

    def add_person(self, person: Person, assessments: Sequence[Assessment] = ()) -> None:
        """Measure the errors of a person with the scan that the results were made of, and HR."""
        assert person.scan is not None and person.hr is not None
        found = []
        for result in person.results:
            check_on_scan(result, person.scan)
            factors = (person.scan.spacing / result.spacing).tolist()
            found.append(draw_scores(result.voxels, person.hr.voxels, person.scan.voxels, factors))
        self.scores[person.name] = [*self.scores.get(person.name, ()), *found]

    def write(self) -> None:
        """Write the interval, and print what was found."""
        each = self.scores.values()
        joined = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in each]
        interval = calibrate_interval(joined)
        write_overlay(self.overlay, {**self.known, "interval": interval.describe()})
        number = interval.people
        least = interval.level * number / (number + 1)
        print(
            f"{Path(self.overlay).name} holds the interval of {interval.level:.0%} over {number} people. Over many "
            f"new people like these, the mean coverage is at least {least:.0%}, whatever the errors; that of one may "
            "be less."
        )


def calibrate_interval(people: Sequence[Mapping[str, np.ndarray]], level: float = 0.9) -> Interval:
    r"""Find the factors of an interval by split conformal prediction, with a person as the unit.

    A score is the error of a voxel over :func:`estimate_error_scale`. Voxels of one person are alike, so each person
    counts as one, whatever the number of voxels: the factor of a region is the quantile of the mean of the people's
    distributions. Over exchangeable people, a new one has a mean coverage of at least :math:`level\, n / (n + 1)` with
    n people, and close to the level.

    Args:
        people: scores by region, of each person.
        level: share of the voxels that the interval shall hold, 0 to 1.

    Source:
        Dunn et al., Distribution-free prediction sets for two-layer hierarchical models, JASA 118, 2023 (pooling of
        distributions). The bound: Lee et al., Distribution-free inference with hierarchical data, arXiv 2306.06342.
    """
    factors = {}
    for name in REGIONS:
        scores = [person[name] for person in people if len(person[name])]
        if not scores:
            raise ValueError(f"no person has voxels of the region {name}; calibrate on volumes that have them.")
        pooled = np.concatenate(scores)
        shares = np.concatenate([np.full(len(values), 1 / len(values)) for values in scores])
        order = np.argsort(pooled)
        reached = np.cumsum(shares[order]) / len(scores)
        factors[name] = float(f"{pooled[order][np.searchsorted(reached, level - 1e-9)]:.4g}")
    return Interval(level, factors, len(people))


def draw_scores(
    result: np.ndarray, hr: np.ndarray, scan: np.ndarray, factors: Sequence[float]
) -> dict[str, np.ndarray]:
    """Scores for :func:`calibrate_interval`, at most 50,000 of a region.

    Args:
        hr: ``(X, Y, Z)``, on the grid of the result, in the same units.
        result, scan, factors: as for :func:`estimate_error_scale`.
    """
    score = np.abs(result - hr) / estimate_error_scale(result, scan, factors)
    rng = np.random.default_rng(0)
    return {name: rng.permutation(score[mask])[:_DRAWN] for name, mask in divide_by_brightness(result).items()}


def measure_sparsification(error: np.ndarray, half_width: np.ndarray) -> dict[str, Any]:
    """How well the widths of intervals tell where errors are large.

    Args:
        error, half_width: 1-D arrays of one length, in the same units.

    Returns:
        ``curve`` and ``oracle``: mean absolute error of the voxels that are left, over that of all, when those with the
        widest intervals, or with the largest errors, are left out, at each of ``shares``. ``sorted``: how far the curve
        lies below 1, on average, over how far the oracle does: 1 is the oracle, and 0 is chance or a constant width.
        ``rank``: Spearman's correlation of the absolute error and the width; NaN if one is constant.

    Source:
        Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, ECCV 2018.
    """
    size = np.abs(error).astype(np.float64)
    mean = size.mean() or 1.0
    # Voxels with the same width are left out at random.
    tie = np.random.default_rng(0).permutation(len(size))

    def leave_out(by: np.ndarray) -> np.ndarray:
        ordered = size[np.lexsort((tie, -by))] / mean
        left = np.cumsum(ordered[::-1])[::-1] / np.arange(len(ordered), 0, -1)
        return left[(_SHARES * len(ordered)).astype(int)]

    curve, oracle = leave_out(half_width), leave_out(size)

    rank = np.nan
    if np.ptp(half_width) and np.ptp(size):
        rank = float(np.corrcoef(rankdata(size), rankdata(half_width))[0, 1])
    possible = 1 - oracle.mean()
    gain = float((1 - curve.mean()) / possible) if possible > 0 and np.ptp(half_width) else 0.0
    return {"shares": _SHARES, "curve": curve, "oracle": oracle, "sorted": gain, "rank": rank}


def draw_coverage(coverage: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the coverage of each person, a point, by region, and the mean over the persons.

    Args:
        coverage: 0 to 1, of each person, by region.
    """
    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, shares in enumerate(coverage.values()):
        shifts = np.linspace(-0.15, 0.15, len(shares)) if len(shares) > 1 else np.zeros(1)
        axes.plot(place + shifts, shares, "o", markersize=3, color="0.6")
        axes.plot([place - 0.25, place + 0.25], [np.mean(shares)] * 2, color="C0", linewidth=2)
    axes.set_xticks(range(len(coverage)), list(coverage))
    axes.set(ylabel="coverage", ylim=(min(0.5, *(min(s) for s in coverage.values())), 1.0))
    axes.set_title("points: persons; lines: means", fontsize=9)
    axes.grid(axis="y", color="0.9")
    return figure


def draw_sparsification(shares: np.ndarray, curve: np.ndarray, oracle: np.ndarray) -> Figure:
    """Draw the error that is left when voxels with the widest intervals are left out: mean and range over persons.

    Args:
        shares: of the voxels that are left out, (N,).
        curve, oracle: mean error left over that of all, (persons, N), by width and by the error itself.
    """
    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [1, 1], color="0.5", linestyle="--", label="at random")
    for values, label, colour in ((curve, "the widest intervals", "C0"), (oracle, "the largest errors", "0.3")):
        axes.fill_between(shares, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(shares, values.mean(axis=0), color=colour, label=label)
    axes.set(xlabel="share of the tissue's voxels left out", ylabel="mean error left", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure
