"""Student's paired t-test of methods over people, corrected within families of methods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from .files import align_columns

_ALL = "all methods"  # the family of rows that do not name theirs
_FEWEST = 3  # people of a test


def run_paired_t_tests(rows: Sequence[Mapping], against: str, scores: Sequence[str]) -> dict:
    """Return each method's mean difference to another method and its corrected two-sided p, for each score.

    A person's cases are one observation, by the mean of their differences. p is corrected by :func:`correct_by_holm`
    for each score by itself, over the methods of a family. So a further row changes the p of its own family only.

    Args:
        rows: as for :func:`common.reports.write_table`, or as read from its ``table.csv``. With several seeds, a case's
            value is their mean. Cases with different ``input`` are different cases. A case whose ``person`` is unknown
            is a person. A method with an empty ``family`` is not tested. Rows without the key are one family.
        against: the method that the others are compared with, over two or more shared people.
        scores: columns of the rows.

    Returns:
        ``{"against": ..., "families": {family: [method, ...]}, "methods": {method: {score: test}}}``. A test is
        ``{"difference", "p_uncorrected", "p", "n"}`` with n people. p is None, and not part of the correction, if the
        method is not tested, there are fewer than three people, or all differences are equal.

    Raises:
        ValueError: when no row is of the method ``against``.
    """
    methods = {row["method"]: row.get("family", _ALL) for row in rows}
    if against not in methods:
        raise ValueError(f"against is '{against}', expected one of the methods: {', '.join(methods)}.")
    results: dict[str, dict] = {method: {} for method in methods if method != against}
    for method, score in itertools.product(results, scores):
        difference = _compute_differences(rows, method, against, score)
        if len(difference) < 2:
            continue
        p: Any = math.nan
        if methods[method] and len(difference) >= _FEWEST and np.ptp(difference) > 0:
            p = float(ttest_1samp(difference, 0).pvalue)
        p = p if math.isfinite(p) else None
        results[method][score] = {
            "difference": float(difference.mean()), "p_uncorrected": p, "p": p, "n": len(difference)
        }  # fmt: skip
    families: dict[str, list[str]] = {}
    for method, tests in results.items():
        if any(test["p"] is not None for test in tests.values()):
            families.setdefault(methods[method], []).append(method)
    for members, score in itertools.product(families.values(), scores):
        done = [test for m in members if (test := results[m].get(score)) and test["p"] is not None]
        for test, p in zip(done, correct_by_holm([test["p"] for test in done]), strict=True):
            test["p"] = p
    return {"against": against, "families": families, "methods": results}


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
        return f"\nno paired t-test: no method shares cases of two people with {tests['against']}"
    scores = list(dict.fromkeys(score for scores_of_method in tests["methods"].values() for score in scores_of_method))
    lines = [["method", "people", *(f"{columns[score][0]}: difference, p" for score in scores)]]
    for method, scores_of_method in tests["methods"].items():
        cells = [_format_test(scores_of_method.get(score), columns[score][1]) for score in scores]
        n = max((test["n"] for test in scores_of_method.values()), default=None)
        lines.append([method, "under 2" if n is None else str(n), *cells])
    text = f"\npaired t-test over people, against {tests['against']}: a person's cases count once, by their mean"
    text += f"\n{align_columns(lines)}"
    text += "\np is corrected (Holm 1979) for each score by itself, over the tests of a family:"
    for family, members in tests["families"].items():
        text += f"\n  {family}: {len(members)} test{'s' * (len(members) > 1)}, of {'; '.join(members)}"
    tested = [method for members in tests["families"].values() for method in members]
    if others := [method for method in tests["methods"] if method not in tested]:
        text += f"\n  not tested: {'; '.join(others)}"
    return text


def _format_test(test: Mapping | None, decimals: int) -> str:
    if test is None:
        return "-"
    p = "-" if test["p"] is None else f"{test['p']:.2g}"
    return f"{test['difference']:+.{decimals}f}, {p}"


def _compute_differences(rows: Sequence[Mapping], method: str, against: str, score: str) -> np.ndarray:
    """Return the mean difference of a score for each person with cases of both methods."""
    ours, theirs = (_group_by_case(rows, name, score) for name in (method, against))
    people = {row["case"]: row.get("person") or row["case"] for row in rows if row["method"] == method}
    by_person: dict[str, list[float]] = {}
    for case in (case for case in ours if case in theirs):
        by_person.setdefault(people[case[0]], []).append(ours[case] - theirs[case])
    return np.array([np.mean(differences) for differences in by_person.values()])


def _group_by_case(rows: Sequence[Mapping], method: str, score: str) -> dict[tuple, float]:
    """Return a score's finite values of a method by case and input, each the mean of its seeds."""
    values: dict[tuple, list[float]] = {}
    for row in rows:
        if row["method"] == method and math.isfinite(value := float(row[score])):
            values.setdefault((row["case"], row.get("input")), []).append(value)
    return {case: float(np.mean(seed_values)) for case, seed_values in values.items()}
