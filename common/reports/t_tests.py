"""Student's paired t-test of methods over shared cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from .files import align_columns


def run_paired_t_tests(rows: Sequence[Mapping], against: str, scores: Sequence[str]) -> dict:
    """Return each method's mean difference to another method and its corrected two-sided p, for each score.

    Args:
        rows: as for :func:`common.reports.write_table`. With several seeds, a case's value is their mean. If rows have
            ``input``, the number of a case's LR scan, cases with different inputs are different cases.
        against: the method that the others are compared with, over two or more shared cases.
        scores: columns of the rows.

    Returns:
        ``{"against": ..., "methods": {method: {score: {"difference", "p", "n"}}}}``. p is corrected by
        :func:`correct_by_holm` over the methods. It is None if all differences are equal, and then not part of the
        correction.

    Raises:
        ValueError: when no row is of the method ``against``.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if against not in methods:
        raise ValueError(f"against is '{against}', expected one of the methods: {', '.join(methods)}.")
    results: dict[str, dict] = {method: {} for method in methods if method != against}
    for method, score in itertools.product(results, scores):
        ours, theirs = (_group_by_case(rows, name, score) for name in (method, against))
        shared = [case for case in ours if case in theirs]
        if len(shared) < 2:
            continue
        difference = np.array([ours[case] - theirs[case] for case in shared])
        p: Any = float(ttest_1samp(difference, 0).pvalue) if np.ptp(difference) > 0 else math.nan
        p = p if math.isfinite(p) else None
        results[method][score] = {"difference": float(difference.mean()), "p": p, "n": len(shared)}
    for score in scores:
        tests = [by_score[score] for by_score in results.values() if by_score.get(score, {}).get("p") is not None]
        for test, p in zip(tests, correct_by_holm([test["p"] for test in tests]), strict=True):
            test["p"] = p
    return {"against": against, "methods": results}


def correct_by_holm(p: Sequence[float]) -> list[float]:
    """Correct the p of several tests, so that p bounds the probability of any wrong finding among them.

    The smallest of m is multiplied by m, the next by m - 1 and so on. No value is below an earlier one or above 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2), 1979.
    """
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected


def describe_t_tests(tests: Mapping, columns: Mapping[str, tuple[str, int]]) -> str:
    """Return the text below a table, of :func:`run_paired_t_tests` and each score's title and decimals."""
    if not any(tests["methods"].values()):
        return f"\nno paired t-test: no method shares two cases with {tests['against']}"
    scores = list(dict.fromkeys(score for scores_of_method in tests["methods"].values() for score in scores_of_method))
    lines = [["method", "cases", *(f"{columns[score][0]}: difference, p" for score in scores)]]
    for method, scores_of_method in tests["methods"].items():
        cells = [_format_test(scores_of_method.get(score), columns[score][1]) for score in scores]
        n = max((test["n"] for test in scores_of_method.values()), default=None)
        lines.append([method, "under 2" if n is None else str(n), *cells])
    head = f"paired t-test over the cases, against {tests['against']}; p is corrected over the methods (Holm 1979)"
    return f"\n{head}\n{align_columns(lines)}"


def _format_test(test: Mapping | None, decimals: int) -> str:
    if test is None:
        return "-"
    p = "-" if test["p"] is None else f"{test['p']:.2g}"
    return f"{test['difference']:+.{decimals}f}, {p}"


def _group_by_case(rows: Sequence[Mapping], method: str, score: str) -> dict[tuple, float]:
    """Return a score's finite values of a method by case and input, each the mean of its seeds."""
    values: dict[tuple, list[float]] = {}
    for row in rows:
        if row["method"] == method and math.isfinite(value := float(row[score])):
            values.setdefault((row["case"], row.get("input")), []).append(value)
    return {case: float(np.mean(seed_values)) for case, seed_values in values.items()}
