"""WDSR along one axis: its size, its blocks, its new columns, and the interpolation that it adds to."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from common.degradations import GaussianProfile
from common.networks import WDSR, AxisResampling
from common.networks.wdsr import NormalizedConvolution


def small(factor):
    torch.manual_seed(0)
    network = WDSR(GaussianProfile((1, 1, factor)), features=5, blocks=2).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def test_parameters_are_those_of_eclare():
    """15,092,420 in the authors' program (eclare 1.0.1), and a gain for each channel of a normalised convolution."""
    with torch.device("meta"):
        network = WDSR(GaussianProfile((1, 1, 4)))
    gains = [p.numel() for name, p in network.named_parameters() if name.endswith("gain")]
    assert sum(p.numel() for p in network.parameters()) - sum(gains) == 15_092_420
    assert sum(gains) == 16 * (1024 + 204 + 256)


def test_weights_are_normalised_as_torch_does():
    own, known = NormalizedConvolution(3, 4, 3), weight_norm(nn.Conv2d(3, 4, 3, padding=1))
    g, v = known.parametrizations.weight.original0, known.parametrizations.weight.original1
    with torch.no_grad():
        known.bias.copy_(own.bias)
        v.copy_(own.weight)
        g.copy_(v.flatten(1).norm(dim=1).view_as(g))
        images = torch.rand(2, 3, 5, 6)
        assert torch.allclose(own(images), torch.conv2d(images, own.weight, own.bias, padding=1), atol=1e-6)
        g.mul_(1.5)
        own.gain.mul_(1.5)
    for convolution in (own, known):
        convolution(images).square().sum().backward()
    torch.testing.assert_close(own(images), known(images))
    torch.testing.assert_close(own.weight.grad, v.grad)
    torch.testing.assert_close(own.gain.grad, g.grad)


@pytest.mark.parametrize("factor", [3, 2.4])
def test_columns_are_shuffled_resampled_and_added_to_the_interpolation(factor):
    network, lr = small(factor), torch.rand(2, 1, 6, 10, dtype=torch.float64)
    x = network.head(lr)
    for block in network.blocks:
        wide, _, narrow, last = block.body
        x = x + last(narrow(wide(x).relu()))
    columns = network.tail(x)
    fine = torch.stack([columns[:, k] for k in range(3)], dim=-1).reshape(2, 1, 6, 30)
    offset = (factor - 1) / 2
    detail = fine if factor == 3 else AxisResampling(factor, offset, columns=3)(fine)
    expected = AxisResampling(factor, offset)(lr) + detail
    torch.testing.assert_close(network(lr), expected, rtol=0, atol=1e-6)
    assert network(lr).shape[-1] == GaussianProfile((1, 1, factor)).compute_hr_size((1, 1, 10))[2]


@pytest.mark.parametrize("factor", [3, 2.4])
def test_an_untrained_network_interpolates_and_learns(factor):
    network, lr = WDSR(GaussianProfile((1, 1, factor)), features=4, blocks=1), torch.rand(1, 1, 6, 10)
    torch.testing.assert_close(network(lr), AxisResampling(factor, (factor - 1) / 2)(lr))
    network(lr).square().mean().backward()
    assert network.tail.weight.grad.abs().max() > 0
