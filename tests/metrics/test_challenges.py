"""Scores of challenges: against values by hand, and against loops over voxels and windows."""

import numpy as np
import pytest

from common.metrics.challenges import CHALLENGES, Pair, measure_terms, sum_ranks, sum_terms
from tests.refused import refused

ULF, FIELDS = CHALLENGES["ulf-enc"], CHALLENGES["mrixfields"]


def ssim_at(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Wang's SSIM of one window with equal weights and sample covariance."""
    covariance = np.cov(a.ravel(), b.ravel())
    one, two = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    means = 2 * a.mean() * b.mean() + one, a.mean() ** 2 + b.mean() ** 2 + one
    return means[0] * (2 * covariance[0, 1] + two) / (means[1] * (covariance[0, 0] + covariance[1, 1] + two))


def test_ulf_enc_by_hand():
    """Units do not count, nor what lies beyond the mask but for the scale; each voxel has a PSNR of its own."""
    rng = np.random.default_rng(0)
    sr, hr = rng.random((2, 13, 12, 11))
    for volume in (sr, hr):
        volume[0, 0, :2] = 0, 1
    mask = np.zeros(hr.shape, bool)
    mask[4:9, 4:8, 4:7] = True
    masked = [volume * mask for volume in (sr, hr)]
    windows = [tuple(slice(i - 3, i + 4) for i in at) for at in np.argwhere(mask)]
    error = (sr - hr)[mask]
    expected = {
        "SSIM": np.mean([ssim_at(masked[0][w], masked[1][w], 1.0) for w in windows]),
        "PSNR": np.mean([-10 * np.log10(e**2 + 1e-8) for e in error]),
        "MAE": np.mean(abs(error)),
        "NMSE": np.sum(error**2) / np.sum(hr[mask] ** 2),
    }
    found = measure_terms(ULF, Pair(300 * sr + 7, 20 * hr - 3, mask))
    assert found == pytest.approx(expected, rel=1e-6)
    score = 0.7 * found["SSIM"] + 0.1 * found["PSNR"] / 32 + 0.1 * (1 - found["MAE"]) + 0.1 * (1 - found["NMSE"])
    assert sum_terms(ULF, found) == pytest.approx(score)
    equal = measure_terms(ULF, Pair(hr, hr, mask))
    assert equal == pytest.approx({"SSIM": 1, "PSNR": 80, "MAE": 0, "NMSE": 0})
    assert measure_terms(ULF, Pair(1 - 0.1 * hr, 0.1 * hr**9, mask))["NMSE"] == 1  # not more


class Difference:
    """In place of LPIPS."""

    def compute_score(self, sr, hr, axes):
        assert axes == (2,) and sr.flags.c_contiguous
        return float(abs(sr - hr).mean())


def test_mrixfields_by_hand():
    rng = np.random.default_rng(1)
    hr = 0.5 * rng.random((9, 9, 4))
    sr = hr + 0.1 * rng.standard_normal(hr.shape)
    hr[..., 1] = 0  # a slice of air does not count for SSIM
    hr_labels, sr_labels = np.zeros((2, 8, 5, 5), int)
    hr_labels[:4, 0, 0], sr_labels[1:4, 0, 0] = 17, 17  # the left hippocampus, a quarter smaller
    hr_labels[:2, 1, 1], sr_labels[:2, 2, 2] = 58, 58  # the right accumbens elsewhere
    hr_labels[0, 4, 4], sr_labels[1, 4, 4] = 2, 3  # white matter and cortex do not count
    sr_labels[7, 4, 4] = 10  # a thalamus that is not there
    pair = Pair(sr[::-1], hr[::-1], lpips=Difference())
    found = measure_terms(FIELDS, pair)
    data_range = hr.max()
    centre = [slice(3, 6)] * 2
    windows = [(slice(x - 3, x + 4), slice(y - 3, y + 4)) for x in range(9)[centre[0]] for y in range(9)[centre[1]]]
    expected = {
        "nRMSE": np.sqrt(np.sum((sr - hr) ** 2) / np.sum(hr**2)),
        "SSIM": np.mean([ssim_at(sr[(*w, z)], hr[(*w, z)], data_range) for z in (0, 2, 3) for w in windows]),
        "LPIPS": abs(sr - hr).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    with_labels = measure_terms(FIELDS, pair._replace(sr_labels=sr_labels, hr_labels=hr_labels))
    assert with_labels["Dice"] == pytest.approx((2 * 3 / 7 + 0 + 0 + 11) / 14)
    assert with_labels["Volume"] == pytest.approx((0.75 + 1 + 0 + 11) / 14)
    refused(lambda: measure_terms(FIELDS, pair._replace(hr=255 * hr)), ValueError, "expected 0 to 1")


def test_ranks_are_summed_over_metrics_in_their_own_directions():
    methods = {
        "a": {"nRMSE": 0.1, "SSIM": 0.9, "LPIPS": 0.3},  # first, first, third
        "b": {"nRMSE": 0.2, "SSIM": 0.9, "LPIPS": 0.1},  # second, first as a, first
        "c": {"nRMSE": 0.3, "SSIM": 0.8, "LPIPS": 0.2},
    }
    assert sum_ranks(FIELDS, methods) == {"a": 1 + 1.5 + 3, "b": 2 + 1.5 + 1, "c": 3 + 3 + 2}
