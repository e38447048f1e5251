"""EDSR: its size, its geometry, and the image that it adds to."""

import pytest
import torch

from common.degradations import BlockAverage, GaussianProfile, KSpaceTruncation
from common.networks import EDSR, SlabInterpolation
from tests.refused import refused


@pytest.mark.parametrize("residual", [True, False])
def test_parameters_are_those_of_the_baseline(residual):
    network = EDSR(degradation=GaussianProfile((2, 2, 1)), residual=residual)
    assert sum(p.numel() for p in network.parameters()) == 1_367_553


@pytest.mark.parametrize("factor", [2, 3])
def test_it_is_head_blocks_and_tail_as_the_paper_draws_them(factor):
    """Lim et al. 2017, fig. 3, slice by slice: skips around two convolutions, and around the body."""
    network = EDSR(features=4, blocks=2, degradation=GaussianProfile((factor, factor, 1)), residual=False).double()
    slices = torch.rand(2, 1, 9, 8, 1).double()
    for lr, sr in zip(slices.split(1), network(slices).split(1), strict=True):
        head = x = network.head(lr[..., 0])
        for block in network.body[:-1]:
            first, _, second = block.body
            x = x + second(torch.relu(first(x)))
        wide, _, last = network.tail
        x, shuffled = wide(head + network.body[-1](x)), torch.zeros(1, 4, 9 * factor, 8 * factor).double()
        for phase in range(factor**2):
            shuffled[:, :, phase // factor :: factor, phase % factor :: factor] = x[:, phase :: factor**2]
        torch.testing.assert_close(sr[..., 0], last(shuffled))


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 1)), BlockAverage((2, 2, 1)), None], ids=str)
def test_it_learns_what_the_base_misses(degradation):
    """Which is the interpolation, or the slice itself where that is as fine as the result."""
    base = torch.nn.Identity() if degradation is None else SlabInterpolation(1, (2, 2, 1), degradation.offset)
    network, plain = (EDSR(4, 1, degradation, residual) for residual in ("true", "false"))
    lr = torch.rand(2, 1, 9, 8, 1)
    assert torch.equal(network(lr), base(lr))
    for parameter in network.tail[-1].parameters():
        torch.nn.init.normal_(parameter)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))
    refused(lambda: EDSR(degradation=GaussianProfile((1, 1, 2))), ValueError, "scale is [1, 1, 2]", "[n, n, 1]")
