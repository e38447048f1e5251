"""RDN across slices: its size, its new columns, and the interpolation that it adds to."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import RDN, AxisInterpolation, SignedRange


def small(**changes):
    return RDN(**{"features": 4, "growth": 3, "blocks": 2, "layers": 2, "factor": 3} | changes).double()


def image(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        network = RDN()
    others = [p.numel() for name, p in network.named_parameters() if not name.startswith(("upsampler.", "tail."))]
    assert sum(others) == 21_972_800


def test_it_is_the_paper_layer_by_layer_and_column_by_column():
    """Zhang et al. 2018, fig. 2 and 3; each phase of the new columns is a convolution of its own."""
    network, lr = small(), image(2, 1, 6, 5)
    shallow = network.shallow(lr)
    x, outputs = network.head(shallow), []
    for block in network.blocks:
        known = [x]
        for layer in block.layers:
            known.append(layer(torch.cat(known, dim=1)).relu())
        x = x + block.fusion(torch.cat(known, dim=1))
        outputs.append(x)
    trunk = shallow + network.fusion[1](network.fusion[0](torch.cat(outputs, dim=1)))
    fine = torch.zeros(2, 4, 6, 15, dtype=torch.float64)
    for k in range(3):
        own = slice(4 * k, 4 * k + 4)
        fine[..., k::3] = F.conv2d(trunk, network.upsampler.weight[own], network.upsampler.bias[own], padding=1)
    torch.testing.assert_close(network(lr), network.tail(fine))


def test_it_learns_what_the_base_misses_beginning_with_nothing():
    base = AxisInterpolation(3, 1.0)
    network, plain, lr = small(base=base), small(), image(2, 1, 6, 5)
    assert torch.equal(network(lr), base(lr))
    network(lr).square().mean().backward()
    assert network.tail.weight.grad.abs().max() > 0
    assert torch.equal(network.state_dict()["base.phases"], base.phases), "saved with the weights"
    for parameter in network.tail.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))


def keys(x):
    """Cubic convolution with a = -1/2 (Keys 1981)."""
    x = np.abs(x)
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("factor", [2, 3, 4, 6])
def test_the_base_is_keys_cubic_convolution(factor, place):
    """Its LR columns lie on the first, amid the, or on the last of their HR columns."""
    offset, lr, around = place * (factor - 1), image(2, 1, 3, 7), np.arange(-3, 10)
    hr = AxisInterpolation(factor, offset)(lr)
    positions = (np.arange(7 * factor) - offset) / factor
    expected = lr.numpy()[..., around.clip(0, 6)] @ keys(positions[:, None] - around).T
    np.testing.assert_allclose(hr, expected, atol=1e-6)
    # What the kernel is for: parabolas, away from the edges, stay what they are.
    inside = (positions >= 1) & (positions <= 5)
    parabola = AxisInterpolation(factor, offset)((0.1 * torch.arange(7.0)).square().expand(1, 1, 2, 7))
    np.testing.assert_allclose(parabola[0, 0, 1, inside], (0.1 * positions[inside]) ** 2, atol=1e-6)


def test_signed_range():
    class Square(nn.Module):
        def forward(self, x):
            return x.square()

    assert SignedRange(Square())(torch.tensor([0.0, 0.25, 0.5, 1.0])).tolist() == [1, 0.625, 0.5, 1]


@pytest.mark.parametrize("base", [None, AxisInterpolation(3, 1.0)], ids=["paper", "base"])
def test_torch_script_computes_the_same(base):
    network, lr = SignedRange(small(base=base)).eval(), image(2, 1, 6, 5)
    nn.init.normal_(network.network.tail.weight)
    torch.testing.assert_close(torch.jit.script(network)(lr), network(lr))
