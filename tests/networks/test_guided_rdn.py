"""The guided residual dense network: what each part does, its cascade, and its form for inference."""

import pytest
import torch
from torch import nn

from common.networks import Cascade, Concatenate, GuidedRDN, prepare_for_inference

FEATURES, BLOCKS, LAYERS = 4, 3, 2
both = pytest.mark.parametrize("guided", [True, False], ids=["guided", "alone"])


def untrained(guided=True):
    return GuidedRDN(guided, FEATURES, BLOCKS, LAYERS)


def trained(guided=True, seed=0):
    """With weights and running statistics that are nowhere what they began with, in evaluation mode."""
    torch.manual_seed(seed)
    network = untrained(guided)
    nn.init.normal_(network.tail.weight, std=0.1)
    nn.init.normal_(network.tail.bias)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
    return network.eval()


def image_of(guided=True, size=(7, 6), slices=3):
    return torch.randn(2, 2 if guided else 1, *size, slices)


@both
def test_an_untrained_network_is_the_interpolation_bit_for_bit(guided):
    network = untrained(guided)
    for size in ((7, 6), (1, 9)):
        image = image_of(guided, size)
        assert torch.equal(network(image), image[:, :1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(network(image), image[:, :1])


@both
def test_every_weight_and_every_input_has_a_part_in_the_result(guided):
    network = trained(guided).train()
    image = image_of(guided).requires_grad_()
    network(image).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert (image.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_the_guides_features_join_after_as_many_layers_as_blocks():
    """A change in a layer of the guide's branch, or in a block, reaches the block of its number and those after it."""
    network, image = trained(), image_of()

    def outputs():
        found = []
        handles = [block.register_forward_hook(lambda _, __, y: found.append(y)) for block in network.blocks]
        network(image)
        for handle in handles:
            handle.remove()
        return found

    before = outputs()
    fusions = [block.fusion for block in network.blocks]
    for i, layer in [*enumerate(network.branch), *enumerate(fusions)]:
        kept = layer[1].bias.data.clone()
        layer[1].bias.data += 1
        changed = [not torch.equal(a, b) for a, b in zip(before, outputs(), strict=True)]
        assert changed == [block >= i for block in range(BLOCKS)]
        layer[1].bias.data = kept


def test_blocks_add_to_their_input_and_the_fusion_to_the_first_features():
    network, image = trained(), image_of()

    def silence(layer):
        nn.init.zeros_(layer[1].weight)
        nn.init.zeros_(layer[1].bias)

    x, guide = torch.randn(2, 2, FEATURES, 5, 4)
    for block in network.blocks:
        silence(block.fusion)
        assert torch.equal(block(x, guide), x)
    silence(network.fusion[1])
    planes = image.permute(0, 4, 1, 2, 3).flatten(0, 1)[:, :1]
    expected = (planes + network.tail(network.head(planes))).unflatten(0, (2, 3)).permute(0, 2, 3, 4, 1)
    assert torch.allclose(network(image), expected, atol=1e-6)


def test_slices_do_not_mix():
    network, image = trained(), image_of()
    with torch.no_grad():
        alone = [network(image[i : i + 1, ..., z : z + 1]) for i in range(2) for z in range(3)]
        expected = torch.stack([torch.cat(alone[3 * i : 3 * i + 3], dim=-1)[0] for i in range(2)])
        assert torch.allclose(network(image), expected, atol=1e-6)


@pytest.mark.parametrize(("features", "blocks", "layers"), [(32, 6, 4), (5, 2, 3)])
def test_the_number_of_weights_is_that_of_its_layers(features, blocks, layers):
    def convolutions(*inputs):
        """Of 3 x 3 without a bias, each with the two parameters a channel of its batch norm."""
        return sum((9 * n + 2) * features for n in inputs)

    for guided in (True, False):
        trunk = 2 * features if guided else features
        dense = convolutions(*[trunk + i * features for i in range(layers + 1)])
        expected = convolutions(1, features) + blocks * dense + convolutions(blocks * features, features)
        expected += convolutions(1, *[features] * (blocks - 1)) if guided else 0
        expected += 9 * features + 1
        network = GuidedRDN(guided, features, blocks, layers)
        assert sum(p.numel() for p in network.parameters()) == expected


@both
def test_a_cascade_applies_the_network_of_its_stage_as_torchscript_too(guided, tmp_path):
    networks = [trained(guided, seed) for seed in range(3)]
    cascade = Cascade(networks, 2).eval()
    torch.jit.script(cascade).save(tmp_path / "cascade.ts")
    scripted = torch.jit.load(tmp_path / "cascade.ts")
    for size in ((8, 8), (7, 5)):
        image = image_of(guided, size)
        with torch.no_grad():
            expected = [network(image) for network in networks]
            assert not torch.allclose(expected[0], expected[1], atol=1e-2)
            for form in (cascade, scripted):
                assert torch.allclose(form(image), expected[2], atol=1e-6)
                for stage, result in enumerate(expected):
                    assert torch.allclose(form(image, stage), result, atol=1e-6)
    for stage in (3, -4):
        with pytest.raises(ValueError, match="no such stage"):
            cascade(image, stage)
        with pytest.raises(torch.jit.Error, match="no such stage"):
            scripted(image, stage)


@both
def test_folding_the_batch_norms_changes_nothing_but_the_layers(guided):
    cascade = Cascade([trained(guided, seed) for seed in range(2)], 2).eval()
    state = {name: value.clone() for name, value in cascade.state_dict().items()}
    folded = prepare_for_inference(cascade)
    image = image_of(guided)
    with torch.no_grad():
        for stage in range(2):
            assert torch.allclose(folded(image, stage), cascade(image, stage), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, state[name]) for name, value in cascade.state_dict().items())
    with pytest.raises(ValueError, match="evaluation mode"):
        prepare_for_inference(cascade.train())


def test_concatenate_joins_channels():
    a, b = torch.rand(2, 1, 3, 3, 1), torch.rand(2, 2, 3, 3, 1)
    joined = Concatenate()(a, b)
    assert torch.equal(joined[:, :1], a) and torch.equal(joined[:, 1:], b) and torch.equal(Concatenate()(a), a)


def test_weights_of_another_factor_are_refused():
    """Their sizes are the same, so nothing else would tell."""
    weights = Cascade([GuidedRDN(True, 2, 1, 1)] * 2, 2**0.5).state_dict()
    Cascade([GuidedRDN(True, 2, 1, 1)] * 2, 2**0.5).load_state_dict(weights)
    with pytest.raises(
        ValueError, match=r"2 stages of factor 1.414 \(scale 2\), the config has 2 \(scale 4\); set scale"
    ):
        Cascade([GuidedRDN(True, 2, 1, 1)] * 2, 2).load_state_dict(weights)
