"""The guided residual dense network: its layers written out, its cascade, and its form for inference."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from common.networks import Cascade, Concatenate, GuidedRDN, make_cascade, prepare_for_inference

from ..refused import refused

both = pytest.mark.parametrize("guided", [True, False], ids=["guided", "alone"])


def trained(guided=True, seed=0):
    """With weights and running statistics that are nowhere what they began with, in evaluation mode."""
    torch.manual_seed(seed)
    network = GuidedRDN(guided, 4, 3, 2)
    nn.init.normal_(network.tail.weight, std=0.1)
    nn.init.normal_(network.tail.bias)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
    return network.eval()


def image_of(guided, size=(7, 6)):
    return torch.randn(2, 2 if guided else 1, *size, 3)


@both
def test_an_untrained_network_is_the_interpolation_bit_for_bit(guided):
    network = GuidedRDN(guided, 4, 3, 2)
    for size, half in itertools.product([(7, 6), (1, 9)], [False, True]):
        image = image_of(guided, size)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            assert torch.equal(network(image), image[:, :1])


@both
def test_it_is_the_paper_layer_by_layer_and_slices_do_not_mix(guided):
    """The guide's features after its d-th layer join in the d-th block; blocks add to their input."""

    def layer(modules, *inputs):
        convolution, norm = modules[:2]
        x = torch.conv2d(torch.cat(inputs, dim=1), convolution.weight, padding=1).movedim(1, -1)
        x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        return x.movedim(-1, 1).relu()

    network, image = trained(guided).double(), image_of(guided).double()
    for z in range(3):
        (lr, guide), outputs = (image[:, :1, ..., z], image[:, 1:, ..., z]), []
        x = shallow = layer(network.head[1], layer(network.head[0], lr))
        for i, block in enumerate(network.blocks):
            guide = layer(network.branch[i], guide) if guided else guide
            known = [x, guide] if guided else [x]
            for modules in block.layers:
                known.append(layer(modules, *known))
            x = x + layer(block.fusion, *known)
            outputs.append(x)
        trunk = shallow + layer(network.fusion[1], layer(network.fusion[0], *outputs))
        torch.testing.assert_close(network(image)[..., z], lr + network.tail(trunk))
    assert sum(p.numel() for p in GuidedRDN(guided).parameters()) == (1_229_153 if guided else 905_921)


@both
def test_a_cascade_applies_the_network_of_its_stage_scripted_or_folded_too(guided, tmp_path):
    cascade = Cascade(networks := [trained(guided, seed) for seed in range(3)], 2).eval()
    torch.jit.script(cascade).save(tmp_path / "cascade.ts")
    scripted = torch.jit.load(tmp_path / "cascade.ts")
    state = {name: value.clone() for name, value in cascade.state_dict().items()}
    folded = prepare_for_inference(cascade)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, state[name]) for name, value in cascade.state_dict().items())
    for image in (image_of(guided, (8, 8)), image_of(guided, (7, 5))):
        expected = torch.stack([network(image) for network in networks])
        assert not torch.allclose(expected[0], expected[1], atol=1e-2)
        for form, atol in ((cascade, 1e-6), (scripted, 1e-6), (folded, 1e-5)):
            assert torch.allclose(form(image), expected[2], atol=atol)
            assert torch.allclose(torch.stack([form(image, stage) for stage in range(3)]), expected, atol=atol)
    for stage in (3, -4):
        refused(partial(cascade, image, stage), ValueError, "no such stage")
        refused(partial(scripted, image, stage), torch.jit.Error, "no such stage")
    refused(lambda: prepare_for_inference(cascade.train()), ValueError, "evaluation mode")


def test_concatenate_joins_channels():
    joined = torch.rand(2, 3, 3, 3, 1)
    for parts in ([joined], joined.split([1, 2], dim=1)):
        assert torch.equal(Concatenate()(*parts), joined)


def test_weights_of_another_factor_are_refused():
    """Their sizes are the same, so nothing else would tell."""
    root, two = (Cascade([GuidedRDN(True, 2, 1, 1)] * 2, factor) for factor in (2**0.5, 2))
    root.load_state_dict(weights := root.state_dict())
    refused(lambda: two.load_state_dict(weights), ValueError, "factor 1.414 (scale 2)", "2 (scale 4)", "set scale")


def test_a_cascade_is_made_of_networks_of_its_own():
    cascade = make_cascade(partial(GuidedRDN, True, 2, 1, 1), (4, 4, 1), 2)
    assert cascade.factor == 2 and len({id(p) for p in cascade.parameters()}) == 2 * len(
        [*GuidedRDN(True, 2, 1, 1).parameters()]
    )
    refused(lambda: make_cascade(nn.Identity, (2, 3, 1)), ValueError, "scale is (2, 3, 1)")
    refused(lambda: make_cascade(nn.Identity, (2, 2, 1), 0), ValueError, "cascade is 0")
