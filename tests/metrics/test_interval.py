"""Intervals: coverage of errors that are known, a person as the unit, and how widths sort errors."""

import numpy as np
import pytest

from common.lab.judge.interval import calibrate_interval, measure_sparsification
from common.metrics import Interval, divide_by_brightness, estimate_error_scale
from tests.refused import refused

REGIONS = ("air", "dark", "middle", "bright")


def test_other_people_are_covered_as_stated():
    """People differ in the size of their errors; on average over draws, those of others are held."""
    rng = np.random.default_rng(0)

    def draw_people(number):
        return [
            {name: np.abs(rng.standard_normal(2000)) * np.exp(rng.normal(0, 0.3)) for name in REGIONS}
            for _ in range(number)
        ]

    for level, people in ((0.9, 10), (0.9, 30), (0.5, 20)):
        held = []
        for _ in range(20):
            found = calibrate_interval(draw_people(people), level)
            others = draw_people(20)
            held += [np.mean(p[name] <= found.factors[name]) for p in others for name in REGIONS]
        assert found.people == people and np.mean(held) == pytest.approx(level, abs=0.03)


def test_a_person_counts_as_one():
    """Nine people with one score each, and one with as many as all of them a hundred times over."""
    small = [{name: np.array([score]) for name in REGIONS} for score in (1.0, 2, 3, 4, 5, 6, 7, 8, 9)]
    found = calibrate_interval([*small, {name: np.full(900, 50.0) for name in REGIONS}], 0.9)
    assert set(found.factors.values()) == {9.0} and Interval.read(found.describe()) == found
    with pytest.raises(ValueError, match="bright"):
        calibrate_interval([{name: np.ones(1 if name != "bright" else 0) for name in REGIONS}])
    for wrong in (3, {"level": 0.9}, [0.9, 1], {"level": 0.9, "factors": {"air": 1}, "people": 3}):
        refused(lambda wrong=wrong: Interval.read(wrong), ValueError, "interval", wrong, "--calibrate")


def test_widths_sort_errors():
    rng = np.random.default_rng(1)
    size = rng.uniform(0.1, 1, 20_000)
    error = size * rng.choice([-1, 1], size.shape)
    best = measure_sparsification(error, 3 * size)
    assert best["sorted"] == pytest.approx(1) and best["rank"] == pytest.approx(1)
    np.testing.assert_allclose(best["curve"], best["oracle"])
    # Half of the errors that are left are below 0.1 + 0.9 (1 - share) / 2.
    np.testing.assert_allclose(best["curve"], (0.1 + 0.45 * (1 - best["shares"])) / size.mean(), atol=0.02)
    constant = measure_sparsification(error, np.full(size.shape, 0.2))
    assert constant["sorted"] == 0 and np.isnan(constant["rank"])
    np.testing.assert_allclose(constant["curve"], 1, atol=0.05)
    assert measure_sparsification(error, 1 / size)["sorted"] < -0.5
    assert abs(measure_sparsification(error, rng.uniform(0, 1, size.shape))["sorted"]) < 0.05


def test_scale_of_errors():
    """In the units of the result; detail counts along the finer axes only; flat tissue has the scan's noise."""
    rng = np.random.default_rng(2)
    scan = np.where(np.arange(40)[:, None, None] < 20, 0.0, 100.0) + 2 * rng.standard_normal((40, 40, 40))
    flat = np.full((40, 40, 80), 50.0)
    np.testing.assert_allclose(estimate_error_scale(flat, scan, (1, 1, 2)), 2, rtol=0.25)
    edge = flat + 100.0 * (np.arange(40) >= 20)[:, None, None]
    along, across = (estimate_error_scale(edge, scan, factors) for factors in ((2, 2, 1), (1, 1, 2)))
    assert along[20].min() > 10 and along[2].max() < 3 and across.max() < 3
    np.testing.assert_allclose(estimate_error_scale(7 * edge, 7 * scan, (2, 2, 1)), 7 * along, rtol=1e-4)
    # Each region has a factor of its own.
    factors = dict(zip(REGIONS, (1.0, 2.0, 3.0, 4.0), strict=True))
    volume = np.repeat([0.0, 30.0, 60.0, 90.0], 10)[:, None, None] + rng.uniform(0, 5, (40, 40, 80))
    width = Interval(0.9, factors, 5).compute_half_width(volume, scan, (1, 1, 2))
    for name, mask in divide_by_brightness(volume).items():
        expected = factors[name] * estimate_error_scale(volume, scan, (1, 1, 2))
        np.testing.assert_allclose(width[mask], expected[mask])
