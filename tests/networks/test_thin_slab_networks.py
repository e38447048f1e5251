"""Encoder, decoder and their composition: sizes, counts, layout, and what a script of them computes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import SlabEncoder, SlabInterpolation, SlabSuperResolver, TSRCANDecoder
from common.networks.slab import channels_to_slab, slab_to_channels, to_channels_last


def small(scale, base=True, slices=3, features=8):
    """A small super-resolver whose every weight matters."""
    torch.manual_seed(0)
    interpolation = SlabInterpolation(slices, scale, (0, 0, 0)) if base else None
    decoder = TSRCANDecoder(slices * scale[2], features, 2, 1, 4, scale=scale[:2], base=interpolation)
    network = SlabSuperResolver(SlabEncoder(slices, features, 2), decoder)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_of_the_papers_table_2():
    with torch.device("meta"):
        udean = SlabEncoder(), TSRCANDecoder(slices=6, scale=(2, 2))
        translation = SlabEncoder(), TSRCANDecoder(slices=3)
    assert count(*udean) == 2_457_002
    assert count(*udean, *translation) == 4_764_561


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("scale", [(2, 2, 2), (2, 2, 1), (3, 3, 1), (1, 1, 2)])
def test_a_slab_becomes_a_slab_of_the_scale(scale, base):
    out = small(scale, base)(torch.rand(2, 1, 10, 12, 3))
    assert out.shape == (2, 1, 10 * scale[0], 12 * scale[1], 3 * scale[2])


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
def test_the_encoder_downsamples_by_its_stride(stride):
    features = SlabEncoder(slices=6, features=4, layers=3, stride=stride)(torch.rand(2, 1, 8, 12, 6))
    assert features.shape == (2, 4, 8 // stride[0], 12 // stride[1])


def test_slices_are_channels_in_order_and_back_without_a_copy():
    slab = torch.rand(2, 1, 4, 5, 3)
    image = slab_to_channels(slab)
    assert image.is_contiguous(memory_format=torch.channels_last) and image.data_ptr() == slab.data_ptr()
    for z in range(3):
        assert torch.equal(image[:, z], slab[:, 0, :, :, z])
    assert torch.equal(channels_to_slab(image), slab)


def test_channels_last_takes_any_network_and_changes_no_value():
    network = nn.ModuleList([nn.Conv2d(2, 3, 3), nn.Conv3d(1, 2, 3), nn.Linear(2, 2)])
    before = copy.deepcopy(network.state_dict())
    to_channels_last(network, "cpu")
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_decoder_with_a_base_starts_as_the_base():
    base = SlabInterpolation(3, (2, 2, 2), (0, 0, 0))
    network = SlabSuperResolver(SlabEncoder(3, 8, 2), TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2), base=base))
    lr = torch.rand(1, 1, 8, 8, 3)
    assert torch.equal(network(lr), base(lr))
    network(lr).mean().backward()
    assert network.decoder.tail.weight.grad.abs().max() > 0


def test_the_decoder_is_fig_3_written_out():
    """Head, groups of attention blocks within a long skip, upsampler, tail: one group of one block, by hand."""
    torch.manual_seed(0)
    decoder = TSRCANDecoder(6, 4, groups=1, blocks=1, reduction=2, scale=(2, 2))
    weights = dict(decoder.named_parameters())
    features = torch.rand(2, 4, 6, 5)

    def conv(name, x):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    head = conv("head", features)
    block = "trunk.body.0.body.0"
    y = conv(f"{block}.body.2", conv(f"{block}.body.0", head).relu())
    gain = conv(f"{block}.attention.2", conv(f"{block}.attention.0", y.mean(dim=(2, 3), keepdim=True)).relu())
    group = head + conv("trunk.body.0.body.1", head + y * gain.sigmoid())
    trunk = head + conv("trunk.body.1", group)
    out = conv("tail", F.pixel_shuffle(conv("upsampler.0", trunk), 2))
    assert torch.allclose(slab_to_channels(decoder(features)), out, atol=1e-6)


def test_what_a_decoder_cannot_do_is_said():
    with pytest.raises(ValueError, match=r"one in-plane factor.*slice_axis"):
        TSRCANDecoder(3, 8, scale=(2, 1))
    with pytest.raises(ValueError, match="base needs the slab"):
        small((2, 2, 1)).decoder(torch.rand(1, 8, 4, 4))


@pytest.mark.parametrize("base", [True, False])
def test_torchscript_equals_eager_at_any_size(base):
    network = small((2, 2, 2), base)
    scripted = torch.jit.script(network)
    with torch.no_grad():
        for h, w in ((16, 16), (9, 13)):
            lr = torch.rand(2, 1, h, w, 3)
            assert torch.allclose(scripted(lr), network(lr), atol=1e-6)
            assert network(lr).std() > 0.05


def test_a_wider_view_is_taken_of_all_slices_and_of_the_whole_plane():
    """Every output slice depends on every input slice; channel attention reaches across the plane."""
    network = small((2, 2, 2), base=False)
    lr = torch.rand(1, 1, 16, 16, 3, requires_grad=True)
    out = network(lr)
    for z in range(6):
        (gradient,) = torch.autograd.grad(out[0, 0, 0, 0, z], lr, retain_graph=True)
        assert (gradient[0, 0, :6, :6].abs().amax(dim=(0, 1)) > 1e-8).all()
        assert gradient[0, 0, 14:, 14:].abs().max() > 0
