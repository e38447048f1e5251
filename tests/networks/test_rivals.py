"""Networks of the rivals, each by what it alone does."""

import pytest
import torch
from torch import nn

from common.degradations import GaussianProfile, KSpaceTruncation
from common.networks import (
    EDSR,
    SRCNN,
    VDSR,
    DownsamplingNetwork,
    InterpolatedNetwork,
    ReCNN,
    ReconResNet,
    SlabInterpolation,
    SliceBetween,
)
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


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 1)), GaussianProfile((2, 2, 1)), None], ids=str)
def test_it_learns_what_the_base_misses(degradation):
    """Which is the interpolation, or the slice itself where that is as fine as the result."""
    base = torch.nn.Identity() if degradation is None else SlabInterpolation(1, (2, 2, 1), degradation.offset)
    network, plain = (EDSR(4, 1, degradation, residual) for residual in (True, False))
    lr = torch.rand(2, 1, 9, 8, 1)
    assert torch.equal(network(lr), base(lr))
    for parameter in network.tail[-1].parameters():
        torch.nn.init.normal_(parameter)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))
    refused(lambda: EDSR(degradation=GaussianProfile((1, 1, 2))), ValueError, "scale is [1, 1, 2]", "[n, n, 1]")


def test_srcnn_is_convolutions_with_relu_between():
    network, image = SRCNN([4, 3]), torch.randn(1, 1, 12, 13)
    assert [tuple(p.shape) for p in network.parameters() if p.ndim > 1] == [(4, 1, 9, 9), (3, 4, 1, 1), (1, 3, 5, 5)]
    assert network(image).shape == image.shape and network(image).min() < 0
    refused(lambda: SRCNN([64, 32], [9, 5]), ValueError, [9, 5], [64, 32])


def test_vdsr_is_twenty_layers_that_keep_the_signal():
    network, image = VDSR(), torch.randn(1, 1, 32, 32)
    assert sum(p.numel() for p in network.parameters()) == 664_704 + 1217
    hidden = nn.Sequential(*list(network)[:-1])(image)
    assert 0.1 < hidden.square().mean() / image.square().mean() < 10 and network(image).min() < 0
    assert VDSR(4, 2)(image).shape == image.shape
    refused(lambda: VDSR(layers=1), ValueError, "layers is 1", "2")


def test_the_interpolation_is_added_where_the_residual_is_learned():
    body, lr = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), torch.rand(1, 1, 6, 7, 1)
    degradation = GaussianProfile((2, 2, 1))
    base = SlabInterpolation(1, degradation.factors, degradation.offset)(lr)
    whole = InterpolatedNetwork(body, degradation, residual=False)(lr)
    torch.testing.assert_close(whole[..., 0], body(base[..., 0]))
    residual = InterpolatedNetwork(body, degradation)
    assert torch.equal(residual(lr), base)
    nn.init.constant_(body[0].bias, 0.5)
    torch.testing.assert_close(residual(lr), base + 0.5)
    refused(
        lambda: InterpolatedNetwork(body, GaussianProfile((1, 1, 2))), ValueError, "scale is [1, 1, 2]", "[n, n, 1]"
    )


def test_the_slice_between_two_begins_with_their_mean():
    sides = torch.rand(2, 2, 8, 9)
    mean = sides.mean(dim=1, keepdim=True)
    network = SliceBetween(features=3, blocks=1)
    assert torch.equal(network(sides), mean)
    nn.init.normal_(network.body[-1].weight)
    torch.testing.assert_close(network(sides), mean + network.body(sides))
    bare = SliceBetween(features=3, blocks=1, residual=False)
    assert torch.equal(bare(sides), bare.body(sides)) and bare(sides).shape == mean.shape


@pytest.mark.parametrize("layers", [8, 10])
def test_signals_reach_the_last_layer_of_recnn(layers):
    """As strong as they came, or rectifiers die in training and the network stays the interpolation."""
    images = torch.randn(1, 1, 64, 64)
    hidden = ReCNN(guided=False, layers=layers).body[:-1](images)
    assert 0.3 < hidden.square().mean() / images.square().mean() < 3
    assert (hidden > 0).any(dim=(2, 3)).float().mean() > 0.9
    refused(lambda: ReCNN(layers=1), ValueError, "layers is 1", "2")


@pytest.mark.parametrize("size", [(1, 1), (13, 16), (30, 17), (14, 15)])
def test_reconresnet_takes_images_of_any_size(size):
    """Untrained it is the interpolation; without the residual it ends in a sigmoid."""
    image = torch.rand(2, 1, *size)
    assert torch.equal(ReconResNet(features=2, blocks=1).eval()(image), image)
    whole = ReconResNet(features=2, blocks=1, residual=False).eval()(image)
    assert whole.shape == image.shape and 0 < whole.min() and whole.max() < 1


@pytest.mark.parametrize("factor", [2, 3])
def test_dsn_moves_lr_with_hr(factor):
    """HR that moves by the factor moves LR by a voxel, along both axes."""
    network = DownsamplingNetwork(features=3, blocks=2, factor=factor)
    hr = torch.rand(1, 1, 20 * factor, 24 * factor, 1)
    lr = network(hr)
    assert lr.shape == (1, 1, 20, 24, 1)
    inner = (..., slice(6, -6), slice(6, -6), 0)
    for axis in (2, 3):
        torch.testing.assert_close(network(hr.roll(factor, axis))[inner], lr.roll(1, axis)[inner])
        assert not torch.allclose(network(hr.roll(1, axis))[inner], lr[inner], atol=1e-4)
