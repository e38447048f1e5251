"""Encoder, decoder and their composition: sizes, counts, layout, and what a script of them computes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import SlabEncoder, SlabInterpolation, SlabSuperResolver, TSRCANDecoder
from common.networks.slab import channels_to_slab, slab_to_channels, to_channels_last
from common.networks.ts_rcan import Earlier


def small(scale, base=True, slices=3, features=8):
    """A small super-resolver whose every weight matters."""
    torch.manual_seed(0)
    interpolation = SlabInterpolation(slices, scale, (0, 0, 0)) if base else None
    offset = None if base else (0, 0)
    decoder = TSRCANDecoder(slices * scale[2], features, 2, 1, 4, scale=scale[:2], offset=offset, base=interpolation)
    network = SlabSuperResolver(SlabEncoder(slices, features, 2), decoder)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_of_the_papers_table_2():
    with torch.device("meta"):
        udean = SlabEncoder(), TSRCANDecoder(slices=6, scale=(2, 2), offset=(0, 0))
        translation = SlabEncoder(), TSRCANDecoder(slices=3)
    assert count(*udean) == 2_457_002
    assert count(*udean, *translation) == 4_764_561


def equal(network):
    """The network in double precision with equal, positive weights: what it computes is then as symmetric as it is."""
    for parameter in network.double().parameters():
        nn.init.constant_(parameter, 0.1 if parameter.ndim > 1 else 0.0)
    return network


def centroid(image):
    """Of the last two axes, ``(2,)``."""
    weight = image.detach().abs().flatten(0, -3).sum(0)
    return [
        float((weight.sum(1 - axis) @ torch.arange(n).double()) / weight.sum()) for axis, n in enumerate(weight.shape)
    ]


OFFSETS = [((s, s), o) for s in (1, 2, 3, 4) for o in sorted({(0.0, 0.0), ((s - 1) / 2,) * 2})]


@pytest.mark.parametrize(("scale", "offset"), [*OFFSETS, ((3, 3), (0.0, 1.0)), ((3, 3), (0.5, 0.25))])
def test_the_decoder_is_centred_on_the_offset(scale, offset):
    """What comes of one pixel of the features lies around where that pixel is in HR."""
    decoder = equal(TSRCANDecoder(3, 8, 1, 1, 4, scale=scale, offset=offset))
    features = torch.zeros(1, 8, 16, 16, dtype=torch.double)
    features[:, :, 7, 8] = 1.0
    out = slab_to_channels(decoder(features))
    assert out.shape[2:] == (16 * scale[0], 16 * scale[1]) and out[..., 0].max() == 0 == out[..., -1].max()
    expected = [scale[0] * 7 + offset[0], scale[1] * 8 + offset[1]]
    assert centroid(out) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("stride", "offset"), [*OFFSETS, ((2, 1), (0.5, 0.0)), ((5, 2), (2.0, 0.0))])
def test_the_encoder_is_centred_on_the_offset(stride, offset):
    """What a pixel of the features is made from lies around where that pixel is in HR."""
    encoder = equal(SlabEncoder(3, 4, 3, stride=stride, offset=offset))
    slab = torch.rand(1, 1, 16 * stride[0], 16 * stride[1], 3, dtype=torch.double, requires_grad=True)
    features = encoder(slab)
    assert features.shape == (1, 4, 16, 16)
    (gradient,) = torch.autograd.grad(features[:, :, 7, 8].sum(), slab)
    expected = [stride[0] * 7 + offset[0], stride[1] * 8 + offset[1]]
    assert centroid(slab_to_channels(gradient)) == pytest.approx(expected, abs=1e-6)


def test_alignment_moves_whole_channels_and_repeats_the_edge():
    """By half a pixel half of the channels move by one: nothing is blurred, and no weight is added."""
    x = torch.rand(1, 4, 5, 6)
    moved = F.pad(x, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:]
    assert torch.equal(Earlier((0.5, 0.5))(x), torch.cat([moved[:, :2], x[:, 2:]], dim=1))
    assert torch.equal(Earlier((1, 1))(x), moved)
    for offset in (None, (0.5, 0.5)):
        plain = TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2), offset=offset)
        aligned = TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2), offset=(0, 0))
        assert count(plain) == count(aligned) and plain.state_dict().keys() == aligned.state_dict().keys()
        assert [type(module) for module in plain.upsampler] == [nn.Conv2d, nn.PixelShuffle]


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("scale", [(2, 2, 2), (2, 2, 1), (3, 3, 1), (1, 1, 2)])
def test_a_slab_becomes_a_slab_of_the_scale(scale, base):
    out = small(scale, base)(torch.rand(2, 1, 10, 12, 3))
    assert out.shape == (2, 1, 10 * scale[0], 12 * scale[1], 3 * scale[2])


def without_directions(encoder):
    """The same encoder, which tells no slabs apart."""
    plain = copy.deepcopy(encoder)
    plain.directions = None
    return plain


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
def test_the_encoder_downsamples_by_its_stride(stride):
    features = SlabEncoder(slices=6, features=4, layers=3, stride=stride)(torch.rand(2, 1, 8, 12, 6))
    assert features.shape == (2, 4, 8 // stride[0], 12 // stride[1])


def test_slabs_across_different_axes_are_encoded_apart():
    """An axis is as another bias of the first convolution; for each slab, for all of a batch, the last by default."""
    torch.manual_seed(0)
    encoder, slabs = SlabEncoder(3, 4, 2, turns=3), torch.rand(3, 1, 6, 5, 3)
    plain = without_directions(encoder)
    assert torch.equal(encoder(slabs), plain(slabs))
    nn.init.normal_(encoder.directions)
    turn = torch.tensor([[0, 1, 2], [1, 2, 0], [0, 2, 1]])
    bias = plain.body[0].bias.detach().clone()
    for slab, order, result in zip(slabs.split(1), turn, encoder(slabs, turn).split(1), strict=True):
        plain.body[0].bias.data = bias + encoder.directions[order[2]]
        torch.testing.assert_close(result, plain(slab))
    network = SlabSuperResolver(encoder, nn.Identity())
    network.decoder.forward = lambda features, slab: features
    for axis in range(3):
        torch.testing.assert_close(network(slabs, axis)[turn[:, 2] == axis], encoder(slabs, turn)[turn[:, 2] == axis])
    assert torch.equal(network(slabs), network(slabs, 2)) and torch.equal(encoder(slabs), network(slabs, 2))


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
    with pytest.raises(ValueError, match=r"offset is \(1, 0\), expected from 0 to 0.5"):
        TSRCANDecoder(3, 8, scale=(2, 2), offset=(1, 0))
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
