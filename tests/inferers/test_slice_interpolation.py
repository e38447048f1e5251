"""Slices between slices: where the mean of two is right, thin slices come out where they lie."""

import numpy as np
import pytest
import torch

from common.degradations import GaussianProfile, KSpaceTruncation
from common.inferers import BetweenInferer
from common.networks import SliceBetween

PROFILES = [GaussianProfile((1, 1, factor)) for factor in (2, 3, 4, 5.5)]


@pytest.mark.parametrize("degradation", [*PROFILES, KSpaceTruncation((1, 1, 2))], ids=str)
@pytest.mark.parametrize("batch", [None, 5])
def test_a_ramp_stays_a_ramp(degradation, batch):
    """An untrained network gives means, so linear interpolation; the ends go on as the outermost slices."""
    lr, factor, calls = torch.rand(2, 1, 6, 5, 1) * torch.arange(7.0), degradation.factors[2], []
    sr = BetweenInferer(degradation, batch)(lr, lambda sides: calls.append(len(sides)) or SliceBetween(4, 1)(sides))
    places = (np.arange(round(7 * factor)) - degradation.offset[2]) / factor
    inner = (places >= 0.5) & (places <= 5.5)
    expected = lr[..., 1:2] * torch.from_numpy(places).float()
    assert sr.shape == (2, 1, 6, 5, len(places)) and max(calls) <= (batch or 1)
    assert torch.allclose(sr[..., inner], expected[..., inner], atol=2e-2 if factor % 2 else 1e-5, rtol=0)
