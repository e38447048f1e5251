"""Slice profiles by their shape, noise by its distribution."""

import numpy as np
import pytest
import scipy.stats
import torch

from common.degradations import BlockAverage, GaussianProfile, RicianNoise


@pytest.mark.parametrize(("factor", "fwhm"), [(4, 1.0), (5, 1.0), (4, 1.5), (8, 0.5), (4 ** (1 / 3), 1.0)])
def test_slice_profile_has_its_width_and_its_centre(factor, fwhm):
    operator = GaussianProfile((1, 1, factor), fwhm=fwhm)
    thick = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    thick[..., 4] = 1.0
    profile = operator.adjoint(thick).flatten().numpy()
    position = np.arange(profile.size)
    centre = (profile * position).sum() / profile.sum()
    # The spline's tails end with the volume, which costs the last digits.
    assert centre == pytest.approx(4 * factor + (factor - 1) / 2, abs=2e-5)
    variance = (profile * (position - centre) ** 2).sum() / profile.sum()
    assert np.sqrt(8 * np.log(2) * variance) == pytest.approx(fwhm * factor, rel=1e-3)
    # Wide against a voxel, it is the Gaussian that is sampled.
    gaussian = np.exp(-4 * np.log(2) * ((position - centre) / (fwhm * factor)) ** 2)
    np.testing.assert_allclose(profile, gaussian / gaussian.sum(), atol=2e-2 if factor < 2 else 1e-3)


def test_slice_profile_leaves_the_other_axes_alone():
    hr = torch.rand(1, 3, 12, 5)
    lr = GaussianProfile((1, 3, 1))(hr)
    torch.testing.assert_close(lr[0, 2, :, 4], GaussianProfile((1, 3, 1))(hr[:, 2:3, :, 4:])[0, 0, :, 0])
    assert lr.shape == (1, 3, 4, 5)


def test_block_average_is_the_mean_of_its_blocks():
    hr = torch.rand(1, 4, 6, 8)
    expected = torch.nn.functional.avg_pool3d(hr, (2, 3, 4))
    torch.testing.assert_close(BlockAverage((2, 3, 4))(hr), expected)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("signal", [0.0, 0.05, 0.5])
def test_noise_is_rician(signal, seed):
    torch.manual_seed(0)
    sigma = 0.05
    noisy = RicianNoise(sigma, seed)(torch.full((1, 40, 40, 40), signal)).flatten().numpy()
    expected = scipy.stats.rice(signal / sigma, scale=sigma)
    assert scipy.stats.kstest(noisy, expected.cdf).pvalue > 1e-3
    assert noisy.mean() == pytest.approx(expected.mean(), rel=0.01)


def test_seeded_noise_belongs_to_the_volume():
    a, b = torch.rand(2, 1, 8, 8, 8)
    noise = RicianNoise(0.1, seed=3)
    batch = noise(torch.stack([a, b]))
    torch.testing.assert_close(batch[0], noise(a), rtol=0, atol=0)
    torch.testing.assert_close(batch[1], noise(b), rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(RicianNoise(0.1, seed=3)(a), noise(a), rtol=0, atol=0)
    assert not torch.equal(RicianNoise(0.1, seed=4)(a), noise(a))
    added = [(noise(v) - v).flatten() for v in (a, b)]
    assert abs(torch.corrcoef(torch.stack(added))[0, 1]) < 0.2, "two volumes must not share one noise pattern"


def test_unseeded_noise_is_new_at_every_call_and_follows_the_global_seed():
    volume, noise = torch.rand(1, 8, 8, 8), RicianNoise(0.1)
    torch.manual_seed(0)
    first, second = noise(volume), noise(volume)
    torch.manual_seed(0)
    assert torch.equal(noise(volume), first) and not torch.equal(first, second)


def test_no_noise_is_the_magnitude_with_a_finite_gradient():
    volume = torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1).requires_grad_()
    magnitude = RicianNoise(0.0)(volume)
    torch.testing.assert_close(magnitude.flatten(), torch.tensor([1.0, 0.0, 2.0]))
    (gradient,) = torch.autograd.grad(magnitude.sum(), volume)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-1.0, 0.0, 1.0]))
