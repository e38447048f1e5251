"""What is not rounded to bfloat16: images that are read, images that are the result, and statistics."""

import pytest
import torch
from torch import nn

from common.degradations import GaussianProfile
from common.networks import (
    DCSRN,
    EDSR,
    MDCSRN,
    RDN,
    SRCNN,
    TSRCAN,
    VDSR,
    AdaptiveDecoder,
    AttributeEncoder,
    ContentEncoder,
    DownsamplingNetwork,
    GuidedRDN,
    ReCNN,
    ReconResNet,
    SliceBetween,
    TSRCANDegrader,
    VGGDiscriminator,
)
from common.networks.float32 import FromImage, InstanceNorm, ToImage

IN_PLANE, ACROSS = GaussianProfile((2, 2, 1)), GaussianProfile((1, 1, 2))
IMAGE, SLICE, SLAB = (2, 1, 16, 16), (2, 1, 16, 16, 1), (2, 1, 16, 16, 3)
TSRCAN_SIZES = {"features": 8, "groups": 1, "blocks": 1, "reduction": 2}
READS = {  # an image, and what it has
    "edsr": (lambda: EDSR(4, 1, IN_PLANE, residual=True), SLICE),
    "rdn": (lambda: RDN(ACROSS, 4, 4, 1, 1, residual=True), IMAGE),
    "guided": (lambda: GuidedRDN(True, 4, 1, 1), (1, 2, 16, 16, 3)),
    "recnn": (lambda: ReCNN(True, 4, 3), (1, 2, 16, 16, 3)),
    "tsrcan": (lambda: TSRCAN(3, IN_PLANE, **TSRCAN_SIZES), SLAB),
    "content": (lambda: ContentEncoder(4, 1), IMAGE),
    "attributes": (lambda: AttributeEncoder(2, 4, 2), IMAGE),
}
READS_AND_GIVES = {
    "srcnn": (lambda: SRCNN([4, 3]), IMAGE),
    "vdsr": (lambda: VDSR(4, 3), IMAGE),
    "dcsrn": (lambda: DCSRN(4, 1), IMAGE),
    "mdcsrn": (lambda: MDCSRN(4, 2, 1), IMAGE),
    "dsn": (lambda: DownsamplingNetwork(4, 1), SLICE),
    "edsr": (lambda: EDSR(4, 1, IN_PLANE, residual=False), SLICE),
    "rdn": (lambda: RDN(ACROSS, 4, 4, 1, 1, residual=False), IMAGE),
    "tsrcan": (lambda: TSRCAN(3, IN_PLANE, residual=False, **TSRCAN_SIZES), SLAB),
    "degrader": (lambda: TSRCANDegrader(3, IN_PLANE, **TSRCAN_SIZES), SLAB),
    "reconresnet": (lambda: ReconResNet(4, 1, residual=False), IMAGE),
    "between": (lambda: SliceBetween(4, 1, residual=False), (2, 2, 16, 16)),
}


def in_bfloat16(network, *inputs):
    with torch.autocast("cpu", torch.bfloat16):
        return network(*inputs)


@pytest.mark.parametrize("kind", [FromImage, ToImage])
def test_what_bfloat16_cannot_tell_apart_is_convolved(kind):
    layer = kind(1, 1, 1)
    nn.init.ones_(layer.weight)
    nn.init.constant_(layer.bias, -1)
    image = torch.full((1, 1, 2, 2), 1 + 2**-10)  # 1 in bfloat16
    result = in_bfloat16(layer, image)
    assert result.dtype == (torch.float32 if kind is ToImage else torch.bfloat16)
    for other in (result.float(), layer(image)):
        torch.testing.assert_close(other, torch.full_like(image, 2**-10))


@pytest.mark.parametrize(("make", "shape"), [*READS.values(), *READS_AND_GIVES.values()])
def test_networks_do_not_round_the_images_that_they_read(make, shape):
    """All other convolutions are given what is bfloat16 anyway."""
    network, rounding = make().eval(), []

    def look(layer, inputs):
        rounding.append(not torch.equal(inputs[0].bfloat16().float(), inputs[0].float()))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, ToImage):
            layer.register_forward_pre_hook(look)
    in_bfloat16(network, torch.rand(shape))
    assert rounding and not any(rounding)


@pytest.mark.parametrize(("make", "shape"), READS_AND_GIVES.values(), ids=READS_AND_GIVES)
def test_networks_that_learn_all_of_an_image_give_it_in_float32(make, shape):
    network, image = make().eval(), torch.rand(shape)
    result = in_bfloat16(network, image)
    assert result.dtype == torch.float32 and not torch.equal(result, result.bfloat16().float())


def test_so_does_the_decoder_of_translations():
    decoder = AdaptiveDecoder(2, 4, 1)
    assert in_bfloat16(decoder, torch.rand(1, 16, 6, 6), torch.rand(1, 2)).dtype == torch.float32


def test_verdicts_on_whole_images_are_float32():
    assert in_bfloat16(VGGDiscriminator(3, widths=(4,), dense=4), torch.rand(SLAB)).dtype == torch.float32


def test_statistics_of_an_instance_are_float32():
    x = (2 + torch.rand(1, 2, 64, 64)).bfloat16()
    expected = nn.InstanceNorm2d(2)(x.float())
    torch.testing.assert_close(InstanceNorm()(x), expected.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(InstanceNorm()(x.double()), nn.InstanceNorm2d(2)(x.double()))
