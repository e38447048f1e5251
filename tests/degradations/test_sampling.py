"""What back projection inverts: the config's degradation, or truncation of k-space on the same grid."""

import torch

from common.degradations import BandLimit, GaussianProfile, make_forward_operator
from tests.refused import refused


def test_a_band_limited_scan_is_sampled_on_the_grid_of_the_degradation():
    degradation = GaussianProfile((2, 2, 1))
    assert make_forward_operator(degradation, False) is degradation
    hr = torch.rand(1, 12, 16, 3, dtype=torch.float64)
    sampled = make_forward_operator(degradation, "true")
    assert (sampled.factors, sampled.offset) == (degradation.factors, degradation.offset)
    limited = GaussianProfile((2, 2, 1), fwhm=0.02)(BandLimit((2, 2, 1))(hr))
    assert torch.allclose(sampled(hr), limited) and not torch.allclose(sampled(hr), degradation(hr), atol=1e-2)
    refused(lambda: make_forward_operator(degradation, "maybe"), ValueError, "band_limited is 'maybe'")


def test_a_band_is_limited_along_some_axes():
    hr = torch.rand(1, 12, 12, 6)
    assert torch.equal(BandLimit((2, 2, 2), along=[True, "true", "False"])(hr), BandLimit((2, 2, 1))(hr))
