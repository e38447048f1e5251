"""Agreement of readers: published examples, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from common.metrics.kappa import compute_cohen_kappa, compute_fleiss_kappa, compute_wilson_interval

# 14 readers, 10 items, 5 categories: Fleiss' kappa 0.210 (Wikipedia, Fleiss' kappa).
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def spread(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of two readers, of whom a table counts how often they gave each pair of categories."""
    return tuple(np.repeat(np.indices(table.shape).reshape(2, -1), table.ravel(), axis=1))


def test_published_examples():
    first, second = spread(np.array([[20, 5], [10, 15]]))  # 0.40 (Wikipedia, Cohen's kappa)
    assert compute_cohen_kappa(first, second, 2) == pytest.approx(0.4)
    assert compute_fleiss_kappa(np.array(FOURTEEN)) == pytest.approx(0.210, abs=5e-4)
    # Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17, 1998, table I
    assert compute_wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert compute_wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert compute_wilson_interval(0 / 20, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_as_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(5):
        first = rng.integers(0, 5, 40)
        second = (first + rng.integers(-1, 3, 40)).clip(0, 4)
        for is_ordinal, weights in ((False, None), (True, "linear")):
            expected = cohen_kappa_score(first, second, labels=range(5), weights=weights)
            assert compute_cohen_kappa(first, second, 5, is_ordinal) == pytest.approx(expected)


def test_what_cannot_be_known_is_not_a_number():
    assert np.isnan(compute_cohen_kappa([], [], 3)) and np.isnan(compute_cohen_kappa([1, 1], [1, 1], 3))
    assert np.isnan(compute_fleiss_kappa(np.zeros((0, 3)))) and np.isnan(compute_fleiss_kappa(np.array([[3, 0]])))
    assert np.isnan(compute_fleiss_kappa(np.array([[1, 0], [0, 1]])))
    assert compute_cohen_kappa([0, 1], [0, 1], 2) == compute_fleiss_kappa(np.array([[2, 0], [0, 2]])) == 1
