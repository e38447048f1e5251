"""Reconstructions without a network, against scipy, known signals and the problem that they solve."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile, KSpaceTruncation, RicianNoise
from common.inferers import SplineInferer, TotalVariationInferer, ZeroFillingInferer
from tests.refused import refused

every_degradation = pytest.mark.parametrize(
    "degradation", [KSpaceTruncation((2, 2, 2)), GaussianProfile((2, 2, 1)), GaussianProfile((1, 1, 4))], ids=str
)


def positions(degradation, lr_size):
    """Of HR voxels along each axis, in LR voxels."""
    axes = zip(lr_size, degradation.factors, degradation.offset, strict=True)
    return [(np.arange(f * n) - o) / f for n, f, o in axes]


@every_degradation
def test_zero_filling_gives_back_what_is_below_nyquist_at_its_place(degradation):
    size = (16, 24, 28)  # into which the waves fit

    def waves(places):
        x, y, z = (1 + 0.3 * np.cos(4 * np.pi * p / n + a) for a, (n, p) in enumerate(zip(size, places, strict=True)))
        return torch.from_numpy(x[:, None, None] * y[:, None] * z)[None, None]

    found = ZeroFillingInferer(degradation)(waves([np.arange(n) for n in size]), None)
    assert torch.allclose(found, waves(positions(degradation, size)), atol=1e-9)


@every_degradation
def test_spline_is_scipys(degradation):
    lr = torch.rand(2, 1, 6, 8, 7)
    at = np.meshgrid(*positions(degradation, lr.shape[2:]), indexing="ij")
    expected = map_coordinates(lr[1, 0].numpy(), at, order=3, mode="nearest")
    np.testing.assert_allclose(SplineInferer(degradation)(lr, None)[1, 0], expected, atol=1e-5)


@every_degradation
def test_total_variation_solves_its_problem(degradation):
    weight, hr = 0.003, torch.zeros(1, 1, 24, 24, 24)
    hr[..., 5:17, 6:18, 7:19] = 1.0  # blocks are what total variation knows
    lr = degradation(hr)

    def cost(x):
        missed = (degradation(x) - lr).double().square().sum() * np.prod(degradation.factors) / 2
        x = x.squeeze().double()
        steps = [torch.diff(x, dim=a, append=x.narrow(a, x.shape[a] - 1, 1)) for a in range(3)]
        return float(missed + weight * torch.stack(steps).square().sum(0).sqrt().sum())

    inferers = (TotalVariationInferer(degradation, weight, iterations=150), SplineInferer(degradation))
    found, spline = (inferer(lr, None) for inferer in inferers)
    assert (found - hr).square().mean() < 0.5 * (spline - hr).square().mean()
    assert cost(found) < 1.001 * cost(hr) and cost(found) < 0.9 * cost(spline)
    # A minimum, as nearly as so many iterations come to it: steps away from it, to any side, cost.
    for side in (hr - found, spline - found, *(torch.randn(hr.shape) for _ in range(4))):
        assert cost(found) < 1.001 * cost(found + 0.3 * side)


def test_refused():
    halved = KSpaceTruncation((2, 2, 2))
    refused(lambda: TotalVariationInferer(RicianNoise(0.1, seed=0)), TypeError, "magnitude")
    refused(lambda: TotalVariationInferer(halved, weight=0.0), ValueError, "weight", 0.0)
    refused(lambda: TotalVariationInferer(halved, iterations=0), ValueError, "iterations", 0)
    refused(lambda: ZeroFillingInferer(GaussianProfile((1, 1, 2.5))), ValueError, 2.5)
