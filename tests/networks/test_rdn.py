"""RDN across slices: its size, its new columns, and the interpolation that it adds to."""

import torch

from common.degradations import GaussianProfile
from common.networks import RDN, AxisInterpolation, SignedRange

THICK = GaussianProfile((1, 1, 3))


def small(residual=False):
    return RDN(THICK, features=4, growth=3, blocks=2, layers=2, residual=residual).double()


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        network = RDN(THICK)
    own = [p.numel() for name, p in network.named_parameters() if not name.startswith(("upsampler.", "tail."))]
    assert sum(own) == 21_972_800


def test_it_is_the_paper_layer_by_layer_and_column_by_column():
    """Zhang et al. 2018, fig. 2 and 3; each phase of the new columns is a convolution of its own."""
    network, lr, outputs = small(), torch.rand(2, 1, 6, 5).double(), []
    x = network.head(shallow := network.shallow(lr))
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
        fine[..., k::3] = torch.conv2d(trunk, network.upsampler.weight[own], network.upsampler.bias[own], padding=1)
    torch.testing.assert_close(network(lr), network.tail(fine))


def test_it_learns_what_the_base_misses_beginning_with_nothing():
    base = AxisInterpolation(3, 1.0).double()
    network, plain, lr = small(residual=True), small(), torch.rand(2, 1, 6, 5).double()
    assert torch.equal(network(lr), base(lr))
    network(lr).square().mean().backward()
    assert network.tail.weight.grad.abs().max() > 0
    assert torch.equal(network.state_dict()["base.phases"], base.phases), "saved with the weights"
    for parameter in network.tail.parameters():
        torch.nn.init.normal_(parameter)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("base.")})
    torch.testing.assert_close(network(lr), plain(lr) + base(lr))
    for form in (plain, network):
        torch.testing.assert_close(SignedRange(form)(lr), (form(2 * lr - 1) + 1) / 2)
