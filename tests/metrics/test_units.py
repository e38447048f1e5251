"""HR in other units than its scan is found, and brought to the scan's; in the same units it stays as it is."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.degradations.acquisition import make_acquisition
from common.geometry.nearest import sample_nearest
from common.metrics.units import match_units
from tests.refused import refused


def make_head():
    """A ball of three tissues with smooth shading, in air of 0."""
    coarse, fine, shading = (
        ndimage.gaussian_filter(each, sigma)
        for each, sigma in zip(np.random.default_rng(0).normal(size=(3, 64, 64, 64)), (5, 2, 12), strict=True)
    )
    squares = np.linspace(-1, 1, 64) ** 2
    head = squares[:, None, None] + squares[:, None] + squares < 0.9
    sharp = np.where(head, 300 + 400 * (fine > 0) + 200 * (coarse > 0), 0.0)
    return (ndimage.gaussian_filter(sharp, 0.7) * (1 + 0.1 * shading / shading.std())).astype(np.float32)


@pytest.fixture(scope="module", params=[((2, 2, 2), 0.0), ((1, 1, 4), 0.03), ((1, 1, 8), 0.03)], ids=str)
def pair(request):
    """HR, its scan and the affine of that; the affine of HR is the identity."""
    factors, noise = request.param
    hr = make_head()
    degradation = make_acquisition(factors, sigma=noise * float(hr.max()))
    lr = degradation(torch.from_numpy(hr).double()).abs().float().numpy()
    return hr, lr, degradation.compute_lr_affine(np.eye(4))


def match(hr, scan, affine):
    return match_units(hr.astype(np.float32), np.eye(4), scan, affine, "a.nii")


@pytest.mark.parametrize("gain", [1, 1.01])
def test_the_same_units(pair, gain):
    hr, *scan = pair
    found, done = match(gain * hr, *scan)
    np.testing.assert_array_equal(found, (gain * hr).astype(np.float32))
    assert done is None


@pytest.mark.parametrize(
    ("gain", "offset"),
    [(10, 0), (1.15, 0), (0.85, 0), (1.05, 0), (0.95, 0), (1, 200), (1 / 250, -2), (1 / 1500, 0), (1 / 250, 0.5)],
)
def test_other_units(pair, gain, offset):
    """Factors, offsets, z-scores and shares of the maximum; the numbers are named."""
    hr, *scan = pair
    found, done = match(gain * hr + offset, *scan)
    said = [float(word) for word in done.replace(",", "").split() if word[0] in "-0123456789"]
    assert said[0] == pytest.approx(gain, rel=0.05)
    assert said[1] == pytest.approx(offset, abs=0.03 * gain * 700)
    np.testing.assert_allclose(found, hr, atol=0.05 * 700)


@pytest.mark.parametrize("value", [0, -3])
def test_z_scores_in_a_mask(pair, value):
    """What a mask has filled is air, not tissue of mean brightness."""
    hr, *scan = pair
    inside = hr > 100
    scores = np.where(inside, (hr - hr[inside].mean()) / hr[inside].std(), value)
    found, done = match(scores, *scan)
    assert done and not found[~inside].any()
    assert np.median(np.abs(found - hr)[inside]) < 0.06 * 700


def test_only_one_is_masked(pair):
    """A brain and a head are not compared, whichever is stripped, in any units."""
    hr, scan, affine = pair
    brain = np.hypot.reduce(np.indices(hr.shape) - 31.5) < 20
    stripped = scan * sample_nearest(brain, np.eye(4), scan.shape, affine)
    for gain in (1, 10):
        refused(lambda gain=gain: match(gain * hr * brain, scan, affine), ValueError, "a.nii", "HR has", "neither")
        refused(lambda gain=gain: match(gain * hr, stripped, affine), ValueError, "a.nii", "the scan has", "neither")


def test_another_contrast(pair):
    hr, *scan = pair
    for other in (1200 * (hr > 100) - hr, hr.max() - hr):
        refused(lambda other=other: match(other, *scan), ValueError, "a.nii", "contrast")
