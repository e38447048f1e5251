"""The channelised Hotelling observer, against values from theory."""

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from common.lab.judge.hotelling import ChannelisedHotelling, compute_auc, estimate_auc_deviation


def test_detectability_is_that_of_the_ideal_observer_of_gaussian_channels():
    """AUC = Phi(d / sqrt 2) with d^2 = s^T K^-1 s, also where a channel adds only correlated noise."""
    random = np.random.default_rng(0)
    covariance, signal = np.array([[1.0, 0.9], [0.9, 1.0]]), np.array([0.5, 0.0])
    absent, present = (random.multivariate_normal(mean, covariance, 40000) for mean in (0 * signal, signal))
    observer = ChannelisedHotelling().fit(absent[::2], present[::2].mean(axis=0) - absent[::2].mean(axis=0))
    scores = [observer.score(each[1::2]) for each in (absent, present)]
    d = np.sqrt(signal @ np.linalg.solve(covariance, signal))
    assert compute_auc(*scores) == pytest.approx(ndtr(d / np.sqrt(2)), abs=0.01)
    assert np.std(scores[0]) == pytest.approx(1, abs=0.02) and np.mean(scores[0]) == pytest.approx(0, abs=0.02)


def test_auc_counts_ties_as_half_and_its_spread_falls_with_the_number_of_sites():
    random = np.random.default_rng(0)
    absent, present = random.integers(0, 9, 400), random.integers(2, 11, 300)
    expected = roc_auc_score([0] * 400 + [1] * 300, [*absent, *present])
    assert compute_auc(absent, present) == pytest.approx(expected)
    few, many = estimate_auc_deviation(absent[:100], present[:75]), estimate_auc_deviation(absent, present)
    assert many == pytest.approx(few / 2, rel=0.3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 2.0)])
def test_channels_see_contrast_in_mm_whatever_the_units_and_the_grid(spacing):
    """A channel of a Gaussian blob of variance v is the difference of two Gaussians' means over it."""
    observer = ChannelisedHotelling()
    size = [int(30 / step) | 1 for step in spacing]
    at = np.meshgrid(*((np.arange(n) - n // 2) * step for n, step in zip(size, spacing, strict=True)), indexing="ij")
    variance = 9.0
    blob = np.exp(-sum(a**2 for a in at) / (2 * variance))
    site = np.array([[n // 2 for n in size]])
    even = observer.compute_channels(np.full(size, 700.0), spacing, site)
    channels = observer.compute_channels(700 * (1 + 0.3 * blob), spacing, site)
    means = 1 + 0.3 * np.array([(variance / (variance + width**2)) ** 1.5 for width in observer.widths])
    assert even == pytest.approx(0, abs=1e-6)
    assert channels[0, 1:] == pytest.approx((-np.diff(means) / means[-1])[1:], abs=0.01)
