"""HR in other units than its scan is found, and brought to the scan's; in the same units it stays as it is."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.degradations.acquisition import make_acquisition
from common.metrics.baseline import interpolate_cubic
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
    """HR, its scan's cubic interpolation, and the width of the scan's voxels."""
    factors, noise = request.param
    hr = make_head()
    degradation = make_acquisition(factors, sigma=noise * float(hr.max()))
    lr = degradation(torch.from_numpy(hr).double()).abs().float().numpy()
    return hr, interpolate_cubic(lr, degradation.factors, degradation.offset), factors


def test_the_same_units(pair, recwarn):
    hr, cubic, width = pair
    brain = np.where(np.hypot.reduce(np.indices(hr.shape) - 31.5) < 22, hr, 0)  # a mask is no other unit
    for same in (hr, 1.02 * hr, brain):
        found, done = match_units(same, cubic, width, "HR")
        assert found is same and done is None
    assert not recwarn


@pytest.mark.parametrize(
    ("gain", "offset"), [(10, 0), (1.15, 0), (0.85, 0), (1, 200), (1 / 250, -2), (1 / 1500, 0), (1 / 250, 0.5)]
)
def test_other_units(pair, gain, offset):
    """Factors, offsets, z-scores and shares of the maximum; the numbers are named."""
    hr, cubic, width = pair
    with pytest.warns(UserWarning, match="a.nii: HR has other units than the scan, gain .* and offset "):
        found, done = match_units((gain * hr + offset).astype(np.float32), cubic, width, "a.nii")
    said = [float(word) for word in done.replace(",", "").split() if word[0] in "-0123456789"]
    assert said[0] == pytest.approx(gain, rel=0.05)
    assert said[1] == pytest.approx(offset, abs=0.03 * gain * 700)
    np.testing.assert_allclose(found, hr, atol=0.05 * 700)


def test_a_mask_that_was_filled_with_the_mean_of_z_scores(pair):
    """It is air, not tissue of mean brightness."""
    hr, cubic, width = pair
    inside = hr > 100
    scores = np.where(inside, (hr - hr[inside].mean()) / hr[inside].std(), 0).astype(np.float32)
    with pytest.warns(UserWarning, match="other units"):
        found, _ = match_units(scores, cubic, width, "a.nii")
    assert not found[~inside].any()
    assert np.median(np.abs(found - hr)[inside]) < 0.06 * 700


def test_another_contrast(pair):
    hr, cubic, width = pair
    for other in (1200 * (hr > 100) - hr, hr.max() - hr):
        refused(lambda other=other: match_units(other, cubic, width, "a.nii"), ValueError, "a.nii", "contrast")
