"""The correction of several tests against Holm's procedure as he states it."""

import numpy as np
import pytest

from common.reports.t_tests import correct_by_holm


def test_known_answer():
    assert correct_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm([0.9, 0.8]) == [1.0, 1.0] and correct_by_holm([]) == []


def test_what_is_found_is_what_the_procedure_rejects():
    """From the smallest p on, while p_(k) <= alpha / (m - k + 1); at the first that is larger it ends."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p, alpha = rng.uniform(0, 0.05, rng.integers(1, 8)), rng.uniform(0.01, 0.2)
        rejected = np.zeros(len(p), dtype=bool)
        for k, i in enumerate(np.argsort(p)):
            if p[i] > alpha / (len(p) - k):
                break
            rejected[i] = True
        np.testing.assert_array_equal(np.array(correct_by_holm(p.tolist())) <= alpha, rejected)
