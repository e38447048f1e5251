"""Encoder, decoder and their composition: sizes, counts, layout, and what a script of them computes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.degradations import KSpaceTruncation
from common.networks import TSRCAN, SlabEncoder, SlabSuperResolver, TranslatedTSRCAN, TSRCANDecoder, TSRCANDegrader
from common.networks.slab import channels_to_slab, slab_to_channels
from common.networks.ts_rcan import ShiftTowardsFirstPixel
from common.runtime.memory import to_channels_last

from ..refused import refused


def small(scale, base=True):
    torch.manual_seed(0)
    network = TSRCAN(3, KSpaceTruncation(scale), features=8, groups=2, blocks=1, reduction=4, residual=base)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def equal(network):
    """The network in double precision with equal, positive weights: what it computes is then as symmetric as it is."""
    for parameter in network.double().parameters():
        nn.init.constant_(parameter, 0.1 if parameter.ndim > 1 else 0.0)
    return network


def centroid(slab):
    weight = slab.detach().abs().sum(dim=(0, 1, 4))
    return [float(weight.sum(1 - a) @ torch.arange(n).double() / weight.sum()) for a, n in enumerate(weight.shape)]


OFFSETS = [((s, s), o) for s in (1, 2, 3, 4) for o in sorted({(0.0, 0.0), ((s - 1) / 2,) * 2})]


@pytest.mark.parametrize(("scale", "offset"), [*OFFSETS, ((3, 3), (0.0, 1.0)), ((3, 3), (0.5, 0.25))])
def test_the_decoder_is_centred_on_the_offset(scale, offset):
    decoder = equal(TSRCANDecoder(3, 8, 1, 1, 4, scale=scale, offset=offset))
    features = torch.zeros(1, 8, 16, 16, dtype=torch.double)
    features[:, :, 7, 8] = 1.0
    out = decoder(features)
    assert out.shape[2:4] == (16 * scale[0], 16 * scale[1]) and out[:, :, :, 0].max() == 0 == out[:, :, :, -1].max()
    assert centroid(out) == pytest.approx([scale[0] * 7 + offset[0], scale[1] * 8 + offset[1]], abs=1e-6)


@pytest.mark.parametrize(("stride", "offset"), [*OFFSETS, ((2, 1), (0.5, 0.0)), ((5, 2), (2.0, 0.0))])
def test_the_encoder_is_centred_on_the_offset(stride, offset):
    encoder = equal(SlabEncoder(3, 4, 3, stride=stride, offset=offset))
    slab = torch.rand(1, 1, 16 * stride[0], 12 * stride[1], 3, dtype=torch.double, requires_grad=True)
    features = encoder(slab)
    assert features.shape == (1, 4, 16, 12)
    (gradient,) = torch.autograd.grad(features[:, :, 7, 6].sum(), slab)
    assert centroid(gradient) == pytest.approx([stride[0] * 7 + offset[0], stride[1] * 6 + offset[1]], abs=1e-6)


def test_alignment_moves_whole_channels_and_repeats_the_edge():
    """By half a pixel half of the channels move by one: nothing is blurred, and no weight is added."""
    x = torch.rand(1, 4, 5, 6)
    moved = F.pad(x, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:]
    assert torch.equal(ShiftTowardsFirstPixel((0.5, 0.5))(x), torch.cat([moved[:, :2], x[:, 2:]], dim=1))
    assert torch.equal(ShiftTowardsFirstPixel((1, 1))(x), moved)
    aligned = TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2), offset=(0, 0))
    not_centred = {"residual": False, "centred": False, "features": 8, "groups": 1, "blocks": 1, "reduction": 4}
    for plain in (
        TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2)),
        TSRCANDecoder(6, 8, 1, 1, 4, scale=(2, 2), offset=(0.5, 0.5)),
        TSRCAN(3, KSpaceTruncation((2, 2, 2)), **not_centred).decoder,
    ):
        plain.load_state_dict(aligned.state_dict())
        assert [type(module) for module in plain.upsampler] == [nn.Conv2d, nn.PixelShuffle]


def test_slabs_across_different_axes_are_encoded_apart():
    """An axis acts as another bias of the first convolution; without a turn it is the last."""
    encoder, slabs = SlabEncoder(3, 4, 2, slab_orientations=3), torch.rand(3, 1, 6, 5, 3)
    plain = copy.deepcopy(encoder)
    plain.directions = None
    assert torch.equal(encoder(slabs), plain(slabs))
    nn.init.normal_(encoder.directions)
    turn, bias = torch.tensor([[0, 1, 2], [1, 2, 0], [0, 2, 1]]), plain.body[0].bias.detach().clone()
    for slab, order, result in zip(slabs.split(1), turn, encoder(slabs, turn).split(1), strict=True):
        plain.body[0].bias.data = bias + encoder.directions[order[2]]
        torch.testing.assert_close(result, plain(slab))
    network = SlabSuperResolver(encoder, nn.Identity())
    network.decoder.forward = lambda features, slab: features
    for axis in range(3):
        torch.testing.assert_close(network(slabs, axis)[turn[:, 2] == axis], encoder(slabs, turn)[turn[:, 2] == axis])
    assert torch.equal(network(slabs), network(slabs, 2)) and torch.equal(encoder(slabs), network(slabs, 2))


def test_slices_are_channels_in_order_and_back_without_a_copy_in_the_layout_channels_last():
    image = slab_to_channels(slab := torch.rand(2, 1, 4, 5, 3))
    assert image.is_contiguous(memory_format=torch.channels_last) and image.data_ptr() == slab.data_ptr()
    assert torch.equal(image, slab[:, 0].permute(0, 3, 1, 2)) and torch.equal(channels_to_slab(image), slab)
    network = nn.ModuleList([nn.Conv2d(2, 3, 3), nn.Conv3d(1, 2, 3), nn.Linear(2, 2)])
    before = copy.deepcopy(network.state_dict())
    to_channels_last(network, "cpu")
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_encoder_and_decoder_of_one_block_are_fig_3_written_out():
    encoder, decoder = SlabEncoder(3, 4, layers=2), TSRCANDecoder(6, 4, 1, 1, reduction=2, scale=(2, 2))
    weights, slab = dict([*encoder.named_parameters(), *decoder.named_parameters()]), torch.rand(2, 1, 6, 5, 3)

    def conv(name, x):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    features = conv("body.2", F.leaky_relu(conv("body.0", slab[:, 0].movedim(-1, 1)), 0.2))
    torch.testing.assert_close(encoder(slab), features)
    head, block = conv("head", features), "trunk.body.0.body.0"
    y = conv(f"{block}.body.2", conv(f"{block}.body.0", head).relu())
    gain = conv(f"{block}.attention.2", conv(f"{block}.attention.0", y.mean(dim=(2, 3), keepdim=True)).relu())
    group = head + conv("trunk.body.0.body.1", head + y * gain.sigmoid())
    out = conv("tail", F.pixel_shuffle(conv("upsampler.0", head + conv("trunk.body.1", group)), 2))
    torch.testing.assert_close(slab_to_channels(decoder(features)), out, atol=1e-6, rtol=1e-5)


def test_refused():
    decoder, features = small((2, 2, 1)).decoder, torch.rand(1, 8, 4, 4)
    refused(lambda: decoder(features), ValueError, "base", "slab")
    refused(lambda: TSRCANDecoder(3, 8, scale=(2, 1)), ValueError, "(2, 1)", "slice_axis")
    refused(lambda: TSRCANDecoder(3, 8, reduction=9), ValueError, "reduction is 9", "8 features")
    words = "offset is (1, 0)", "from 0 to 0.5"
    refused(lambda: TSRCANDecoder(3, 8, scale=(2, 2), offset=(1, 0)), ValueError, *words)


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("scale", [(2, 2, 2), (2, 2, 1), (3, 3, 1), (1, 1, 2)])
def test_a_slab_becomes_one_of_the_scale_at_any_size(scale, base):
    network = small(scale, base)
    for h, w in ((16, 16), (9, 13)):
        lr = torch.rand(2, 1, h, w, 3)
        sr = network(lr)
        assert sr.shape == (2, 1, h * scale[0], w * scale[1], 3 * scale[2]) and sr.std() > 0.05


def test_a_translator_keeps_the_grid_and_begins_with_the_slab():
    lr, sizes = torch.rand(1, 1, 8, 8, 3), {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}
    degradation = KSpaceTruncation((2, 2, 2))
    both = TranslatedTSRCAN(3, degradation, **sizes)
    assert torch.equal(both.translator(lr), lr) and torch.equal(both(lr), both.super_resolver(lr))
    bare = TranslatedTSRCAN(3, degradation, residual=False, **sizes)
    assert bare.translator(lr).shape == lr.shape and not torch.equal(bare.translator(lr), lr)
    down, hr = TSRCANDegrader(3, degradation, **sizes), torch.rand(1, 1, 16, 16, 6)
    assert down(hr).shape == lr.shape
    assert torch.equal(TSRCANDegrader(3, degradation, residual=True, **sizes).decoder(down.encoder(hr), lr), lr)
