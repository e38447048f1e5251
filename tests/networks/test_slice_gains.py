"""Thick slices have their gains, thin ones what interpolation makes of these."""

import pytest
import torch

from common.degradations import GaussianProfile
from common.networks import AxisInterpolation, SliceGains

from ..refused import refused

GAINS = torch.tensor([[1.0, 1.2, 0.9, 1.0, 0.7], [1.0, 1.0, 1.0, 1.1, 1.0]])[:, None, None]


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_what_does_not_change_across_the_slices_becomes_what_interpolation_makes_of_it(factor):
    """So the target of a network has nothing that it would have to sharpen."""
    offset, rows = (factor - 1) / 2, torch.rand(2, 1, 7, 1) * 2 - 1
    uneven = SliceGains(GaussianProfile((1, 1, factor)))
    thick, thin = (uneven(rows.expand(-1, -1, -1, slices), GAINS) for slices in (5, 5 * factor))
    torch.testing.assert_close((thick + 1) / 2, (rows + 1) / 2 * GAINS)
    torch.testing.assert_close(thin, AxisInterpolation(factor, offset)(thick))


@pytest.mark.parametrize("dark", [-1.0, 0.0])
def test_no_signal_stays_none_and_gains_of_one_change_nothing(dark):
    uneven, images = SliceGains(GaussianProfile((1, 1, 4)), dark), torch.rand(2, 1, 6, 20) * 2 - 1
    assert torch.equal(uneven(images, torch.ones(2, 1, 1, 5)), images)
    torch.testing.assert_close(uneven(torch.full((2, 1, 6, 20), dark), GAINS), torch.full((2, 1, 6, 20), dark))
    refused(lambda: uneven(images[..., :10], GAINS), ValueError, "10 slices", "5 slices", "4 times")
