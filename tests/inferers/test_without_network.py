"""Reconstructions without a network, against scipy, known signals and the problem that they solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile, KSpaceTruncation, RicianNoise
from common.inferers import SplineInferer, TotalVariationInferer, ZeroFillingInferer

DEGRADATIONS = [KSpaceTruncation((2, 2, 2)), GaussianProfile((2, 2, 1)), GaussianProfile((1, 1, 4))]


def waves(size, positions):
    """A sum of waves that fit into the volume, below the Nyquist frequency of the LR grid, at any positions."""
    volume = np.ones([len(p) for p in positions])
    for n, p, axis in zip(size, positions, range(3), strict=True):
        wave = 1 + 0.3 * np.cos(2 * np.pi * 2 * p / n + axis)
        volume = volume * wave.reshape([-1 if a == axis else 1 for a in range(3)])
    return volume


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: f"{type(d).__name__}{d.factors}")
def test_zero_filling_gives_back_what_is_below_nyquist_at_its_place(degradation):
    size = (16, 24, 28)
    grids = [
        [(np.arange(f * n) - o) / f, np.arange(n)]
        for n, f, o in zip(size, degradation.factors, degradation.offset, strict=True)
    ]
    lr, hr = (torch.from_numpy(waves(size, [grid[i] for grid in grids]))[None, None] for i in (1, 0))
    assert torch.allclose(ZeroFillingInferer(degradation)(lr, None), hr, atol=1e-9)


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: f"{type(d).__name__}{d.factors}")
def test_spline_is_scipys(degradation):
    lr = torch.rand(2, 1, 6, 8, 7, generator=torch.Generator().manual_seed(0))
    sr = SplineInferer(degradation)(lr, None)
    axes = zip(sr.shape[2:], degradation.factors, degradation.offset, strict=True)
    at = np.meshgrid(*[(np.arange(n) - o) / f for n, f, o in axes], indexing="ij")
    expected = map_coordinates(lr[1, 0].numpy(), at, order=3, mode="nearest")
    assert np.allclose(sr[1, 0], expected, atol=1e-5)


def total_variation(volume):
    volume = volume.squeeze().double()
    steps = [torch.diff(volume, dim=a, append=volume.narrow(a, volume.shape[a] - 1, 1)) for a in range(3)]
    return torch.stack(steps).square().sum(0).sqrt().sum()


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: f"{type(d).__name__}{d.factors}")
def test_total_variation_solves_its_problem(degradation):
    weight = 0.003
    hr = torch.zeros(1, 1, 24, 24, 24)
    hr[..., 5:17, 6:18, 7:19] = 1.0
    lr = degradation(hr)

    def cost(x):
        missed = (degradation(x) - lr).double().square().sum() * np.prod(degradation.factors) / 2
        return float(missed + weight * total_variation(x))

    found = TotalVariationInferer(degradation, weight, iterations=150)(lr, None)
    spline = SplineInferer(degradation)(lr, None)
    # Blocks are what total variation knows.
    assert (found - hr).square().mean() < 0.5 * (spline - hr).square().mean()
    assert cost(found) < 1.001 * cost(hr) and cost(found) < 0.9 * cost(spline)
    # A minimum, as nearly as so many iterations come to it: steps away from it, to any side, cost.
    for seed in range(4):
        away = torch.randn(hr.shape, generator=torch.Generator().manual_seed(seed))
        for side in (hr - found, spline - found, away):
            assert cost(found) < 1.001 * cost(found + 0.3 * side)


def test_what_they_refuse():
    with pytest.raises(TypeError, match="needs a linear degradation"):
        TotalVariationInferer(RicianNoise(0.1, seed=0))
    for wrong in ({"weight": 0.0}, {"iterations": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TotalVariationInferer(KSpaceTruncation((2, 2, 2)), **wrong)
    with pytest.raises(ValueError, match="positive integers"):
        ZeroFillingInferer(GaussianProfile((1, 1, 2.5)))
