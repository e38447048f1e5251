"""Contrast and volume of lesions whose truth is known."""

import numpy as np
import pytest

from common.lab.judge.lesions import measure_lesions

SPACING = (1.0, 1.0, 2.0)


def make_balls(contrasts, noise=0.01, blur=0.0):
    """Tissue of 100 with balls of 4 mm radius, 20 mm apart, and their labels."""
    size = (24, 20 * len(contrasts) + 4, 12)
    at = np.meshgrid(*(np.arange(n) * step for n, step in zip(size, SPACING, strict=True)), indexing="ij")
    voxels, labels = np.ones(size), np.zeros(size, np.int32)
    for number, contrast in enumerate(contrasts, 1):
        r = np.sqrt((at[0] - 12) ** 2 + (at[1] - 20 * number + 8) ** 2 + (at[2] - 12) ** 2)
        voxels += contrast * (1 / (1 + np.exp((r - 4) / blur)) if blur else r <= 4)
        labels[r <= 4] = number
    return 100 * voxels + np.random.default_rng(0).normal(0, 100 * noise, size), labels


def test_contrast_noise_and_volume_are_those_of_the_balls():
    voxels, labels = make_balls([0.3, -0.3, 0.002])
    found = measure_lesions(voxels, labels, np.ones(labels.shape, bool), SPACING)
    assert [found[n].contrast for n in (1, 2)] == pytest.approx([0.3, -0.3], abs=0.005)
    assert [abs(found[n].contrast_to_noise) for n in (1, 2)] == pytest.approx([30, 30], rel=0.2)
    for n in (1, 2):
        assert found[n].millilitres == pytest.approx((labels == n).sum() * 0.002, rel=0.01)
    assert [found[n].is_seen for n in (1, 2, 3)] == [True, True, False]


def test_a_soft_edge_leaves_the_half_maximum_volume():
    voxels, labels = make_balls([0.3], noise=0, blur=0.4)
    (measure,) = measure_lesions(voxels, labels, np.ones(labels.shape, bool), SPACING).values()
    assert measure.millilitres == pytest.approx(4 / 3 * np.pi * 4**3 / 1000, rel=0.1)


def test_neither_other_lesions_nor_air_are_healthy_tissue():
    voxels, labels = make_balls([0.3])
    healthy = np.ones(labels.shape, bool)
    near = np.zeros_like(healthy)
    near[:, :6] = True
    healthy[near] = False
    voxels[near] = 0
    labels[:, 19:] = 2
    voxels[:, 19:] = 900
    measure = measure_lesions(voxels, labels, healthy, SPACING)[1]
    assert measure.contrast == pytest.approx(0.3, abs=0.01)
    assert np.isnan(measure_lesions(voxels, labels, ~(labels < 9), SPACING)[1].contrast)
