"""EDSR: its size, its geometry, and the image that it adds to."""

import pytest
import torch

from common.networks import EDSR, SlabInterpolation


@pytest.mark.parametrize("base", [None, SlabInterpolation(1, (2, 2, 1), (0, 0, 0))])
def test_parameters_are_those_of_the_baseline(base):
    assert sum(p.numel() for p in EDSR(base=base).parameters()) == 1_367_553


@pytest.mark.parametrize("factor", [2, 3])
def test_it_is_head_blocks_and_tail_as_the_paper_draws_them(factor):
    """Lim et al. 2017, fig. 3, slice by slice: skips around two convolutions, and around the body."""
    network, slices = EDSR(features=4, blocks=2, factor=factor).double(), torch.rand(2, 1, 9, 8, 1).double()
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


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_it_learns_what_the_base_misses(offset):
    base = SlabInterpolation(1, (2, 2, 1), (offset, offset, 0))
    network, plain, lr = EDSR(features=4, blocks=1, base=base), EDSR(features=4, blocks=1), torch.rand(2, 1, 9, 8, 1)
    assert torch.equal(network(lr), base(lr))
    for parameter in network.tail[-1].parameters():
        torch.nn.init.normal_(parameter)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))
