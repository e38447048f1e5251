"""EDSR: its size, its geometry, and the image that it adds to."""

import pytest
import torch

from common.networks import EDSR, SlabInterpolation


def test_parameters_are_those_of_the_baseline():
    assert sum(p.numel() for p in EDSR().parameters()) == 1_367_553
    assert sum(p.numel() for p in EDSR(base=SlabInterpolation(1, (2, 2, 1), (0, 0, 0))).parameters()) == 1_367_553


@pytest.mark.parametrize("factor", [2, 3])
def test_slices_come_out_that_many_times_as_large(factor):
    network = EDSR(features=4, blocks=2, factor=factor)
    lr = torch.rand(2, 1, 10, 7, 1)
    sr = network(lr)
    assert sr.shape == (2, 1, 10 * factor, 7 * factor, 1)
    # Slices of a batch have nothing to do with each other.
    torch.testing.assert_close(network(lr[1:]), sr[1:])


def test_it_is_head_blocks_and_tail_as_the_paper_draws_them():
    """Lim et al. 2017, fig. 3, layer by layer: skips around two convolutions, and around the body."""
    network = EDSR(features=4, blocks=2).double()
    lr = torch.rand(1, 1, 9, 8, 1, dtype=torch.float64)
    head = x = network.head(lr[..., 0])
    for block in network.body[:-1]:
        first, _, second = block.body
        x = x + second(torch.relu(first(x)))
    x = head + network.body[-1](x)
    wide, _, last = network.tail
    wide = wide(x)
    shuffled = torch.zeros(1, 4, 18, 16, dtype=torch.float64)
    for a in range(2):
        for b in range(2):
            shuffled[:, :, a::2, b::2] = wide[:, 2 * a + b :: 4]
    torch.testing.assert_close(network(lr)[..., 0], last(shuffled))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_it_learns_what_the_base_misses(offset):
    base = SlabInterpolation(1, (2, 2, 1), (offset, offset, 0))
    network = EDSR(features=4, blocks=1, base=base)
    lr = torch.rand(2, 1, 9, 8, 1)
    plain = EDSR(features=4, blocks=1)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))
    with torch.no_grad():
        for parameter in network.tail[-1].parameters():
            parameter.zero_()
    assert torch.equal(network(lr), base(lr))
