"""Slices between slices: where the mean of two is right, thin slices come out where they lie."""

import numpy as np
import pytest
import torch

from common.degradations import GaussianProfile, KSpaceTruncation
from common.inferers import BetweenInferer
from common.networks import SliceBetween


@pytest.mark.parametrize(
    "degradation", [GaussianProfile((1, 1, f)) for f in (2, 3, 4, 5.5)] + [KSpaceTruncation((1, 1, 2))]
)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_ramp_stays_a_ramp(degradation, batch):
    """An untrained network gives means, so linear interpolation; the ends go on as the outermost slices."""
    lr = torch.rand(2, 1, 6, 5, 1) * torch.arange(7.0)
    calls = []

    def network(sides):
        calls.append(len(sides))
        return SliceBetween(4, 1)(sides)

    sr = BetweenInferer(degradation, batch)(lr, network)
    count = round(7 * degradation.factors[2])
    places = (np.arange(count) - degradation.offset[2]) / degradation.factors[2]
    inner = (places >= 0.5) & (places <= 5.5)
    expected = lr[..., 1:2] * torch.from_numpy(places).float()
    assert sr.shape == (2, 1, 6, 5, count) and max(calls) <= batch
    torch.testing.assert_close(
        sr[..., inner], expected[..., inner], atol=2e-2 if degradation.factors[2] % 2 else 1e-5, rtol=0
    )
