"""MUNIT's networks, layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import AdaptiveDecoder, AttributeEncoder, ContentEncoder, MultiScaleDiscriminator


def test_parameters_are_those_of_the_appendix():
    """Convolutions have biases; layer norms a weight and a bias a channel; other norms nothing."""
    with torch.device("meta"):
        networks = [ContentEncoder(), AttributeEncoder(), AdaptiveDecoder(), MultiScaleDiscriminator()]
    c7s1_64, d128_d256 = 49 * 64 + 64, (16 * 64 * 128 + 128) + (16 * 128 * 256 + 256)
    residuals = 4 * 2 * (9 * 256 * 256 + 256)
    attributes = c7s1_64 + d128_d256 + 2 * (16 * 256 * 256 + 256) + 256 * 8 + 8
    upsampling = (25 * 256 * 128 + 3 * 128) + (25 * 128 * 64 + 3 * 64) + 49 * 64 + 1
    perceptron = (8 * 256 + 256) + (256 * 256 + 256) + 257 * 4 * 4 * 256
    judge = (16 * 64 + 64) + d128_d256 + (16 * 256 * 512 + 512) + 513
    expected = [c7s1_64 + d128_d256 + residuals, attributes, residuals + upsampling + perceptron, 3 * judge]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == expected


def convolve(x, layer, stride=1):
    padding = layer.weight.shape[-1] // 2 - (stride - 1)  # 7 and 5 and 3 with stride 1, 4 with stride 2
    return F.conv2d(F.pad(x, [padding] * 4, mode="reflect"), layer.weight, layer.bias, stride=stride)


def normalize(x, dims=(2, 3)):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-5).sqrt()


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("size", [(16, 16), (24, 52)], ids=str)
def test_encoders_are_those_of_the_appendix(size):
    content, attributes = ContentEncoder(3, blocks=2).double(), AttributeEncoder(5, 3).double()
    images = torch.randn(2, 1, *size).double()
    first, *down, a, b, c, d = convolutions(content)
    x = normalize(convolve(images, first)).relu()
    for layer in down:
        x = normalize(convolve(x, layer, 2)).relu()
    for one, other in ((a, b), (c, d)):
        x = x + normalize(convolve(normalize(convolve(x, one)).relu(), other))
    assert x.shape == (2, 12, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(content(images), x)
    first, *down, last = convolutions(attributes)
    x = convolve(images, first).relu()
    for layer in down:
        x = convolve(x, layer, 2).relu()
    torch.testing.assert_close(attributes(images), x.mean(dim=(2, 3)) @ last.weight[:, :, 0, 0].T + last.bias)
    # Beside such values the norms' epsilon is nothing: brightness and contrast are attributes and not content.
    torch.testing.assert_close(content(30 * images + 40), content(100 * images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(5, 5), (6, 4)], ids=str)
def test_the_decoder_gives_channels_the_mean_and_the_scale_that_attributes_ask_for(size):
    decoder = AdaptiveDecoder(3, 2, blocks=2).double()
    content, codes = torch.randn(2, 8, *size).double(), torch.randn(2, 3).double()
    first, _, second, _, last = decoder.perceptron
    wanted, x = last(second(first(codes).relu()).relu()).unflatten(1, (2, 4, 8, 1, 1)), content
    for block, own in zip(decoder.blocks, wanted.unbind(1), strict=True):
        shift, scale, next_shift, next_scale = own.unbind(1)
        inner = (normalize(convolve(x, block.first)) * (1 + scale) + shift).relu()
        x = x + normalize(convolve(inner, block.second)) * (1 + next_scale) + next_shift
    *doublings, end = convolutions(decoder.tail)
    for layer in doublings:
        x = normalize(convolve(x.repeat_interleave(2, 2).repeat_interleave(2, 3), layer), (1, 2, 3)).relu()
    assert end(x).shape == (2, 1, 4 * size[0], 4 * size[1])
    torch.testing.assert_close(decoder(content, codes), convolve(x, end).tanh())


def test_the_discriminator_judges_the_image_at_three_resolutions():
    network, images = MultiScaleDiscriminator(3, layers=2).double(), torch.randn(2, 1, 64, 48).double()
    verdicts, ones = network(images), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert verdicts.shape == (2, 3, 16, 12)
    for i, judge in enumerate(network.scales):
        first, second, last = convolutions(judge)
        x = F.leaky_relu(convolve(F.leaky_relu(convolve(images, first, 2), 0.2), second, 2), 0.2)
        x = F.conv2d(x, last.weight, last.bias)
        repeated = x.repeat_interleave(2**i, dim=2).repeat_interleave(2**i, dim=3)
        torch.testing.assert_close(verdicts[:, i : i + 1], repeated)
        known = F.conv2d(torch.ones_like(images), ones, padding=1)  # the mean is of those pixels that are there
        images = (F.conv2d(images, ones, padding=1) / known)[..., ::2, ::2]
