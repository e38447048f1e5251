"""MUNIT's networks, layer by layer, and what content and attributes are to mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.networks import AdaptiveDecoder, AttributeEncoder, ContentEncoder, MultiScaleDiscriminator


def image(*shape):
    return 2 * torch.rand(*shape, dtype=torch.float64) - 1


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_those_of_the_appendix():
    """Convolutions have biases; layer norms a weight and a bias a channel; other norms nothing."""
    with torch.device("meta"):
        networks = [ContentEncoder(), AttributeEncoder(), AdaptiveDecoder(), MultiScaleDiscriminator()]
    c7s1_64, d128, d256 = 49 * 64 + 64, 16 * 64 * 128 + 128, 16 * 128 * 256 + 256
    residual = 2 * (9 * 256 * 256 + 256)
    content = c7s1_64 + d128 + d256 + 4 * residual
    attributes = c7s1_64 + d128 + d256 + 2 * (16 * 256 * 256 + 256) + 256 * 8 + 8
    u128, u64 = 25 * 256 * 128 + 3 * 128, 25 * 128 * 64 + 3 * 64
    perceptron = (8 * 256 + 256) + (256 * 256 + 256) + 257 * 4 * 4 * 256
    decoder = 4 * residual + u128 + u64 + 49 * 64 + 1 + perceptron
    judge = (16 * 64 + 64) + d128 + d256 + (16 * 256 * 512 + 512) + 513
    assert [count(network) for network in networks] == [content, attributes, decoder, 3 * judge]


def convolve(x, layer, stride=1):
    """With what is around the image mirrored."""
    size = layer.weight.shape[-1]
    padding = size // 2 - (stride - 1)  # 7 and 5 and 3 with stride 1, 4 with stride 2
    return F.conv2d(F.pad(x, [padding] * 4, mode="reflect"), layer.weight, layer.bias, stride=stride)


def normalize(x, dims=(2, 3)):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-5).sqrt()


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("size", [(16, 16), (24, 52)], ids=str)
def test_encoders_are_those_of_the_appendix(size):
    content, attributes = ContentEncoder(3, blocks=2).double(), AttributeEncoder(5, 3).double()
    images = image(2, 1, *size)
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


def test_brightness_and_contrast_are_attributes_and_not_content():
    content, attributes = ContentEncoder(4, blocks=1).double(), AttributeEncoder(8, 4).double()
    images = 100 * image(2, 1, 20, 16)  # beside which the norms' epsilon is nothing
    other = 0.3 * images + 40
    torch.testing.assert_close(content(other), content(images), atol=1e-4, rtol=0)
    assert (content(-images) - content(images)).abs().mean() > 0.1
    assert ((attributes(other) - attributes(images)).abs() > 0.05 * attributes(images).abs()).any(dim=1).all()


@pytest.mark.parametrize("size", [(5, 5), (6, 4)], ids=str)
def test_the_decoder_gives_channels_the_mean_and_the_scale_that_are_asked_for(size):
    decoder = AdaptiveDecoder(3, 2, blocks=2, hidden=5).double()
    seen = []
    for block in decoder.blocks:
        nn.init.normal_(block.first.weight)  # far from the norms' epsilon
        nn.init.normal_(block.second.weight)
        block.second.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        block.register_forward_hook(lambda _, args, out: seen.append(out - args[0]))
    # All of what the first norm of a block makes is positive, so that ReLU leaves it as it is.
    wanted = torch.rand(2, 2, 2, 8, dtype=torch.float64)  # block, norm, shift and scale, channel
    wanted[:, 0, 0] += 20
    last = decoder.perceptron[-1]
    nn.init.zeros_(last.weight)
    last.bias.data.copy_(wanted.flatten())
    content = image(2, 8, *size)
    result = decoder(content, image(2, 3))
    for features, (shift, scale) in zip(seen, wanted.flatten(0, 1), strict=True):
        torch.testing.assert_close(features.mean(dim=(2, 3)), shift.expand(2, -1), atol=1e-5, rtol=0)
        spread = features.std(dim=(2, 3), correction=0)
        torch.testing.assert_close(spread, (1 + scale).expand(2, -1), atol=1e-2, rtol=0)
    x = content + seen[1] + seen[3]
    *doublings, end = [layer for layer in decoder.tail if isinstance(layer, nn.Conv2d)]
    for layer in doublings:
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = normalize(convolve(x, layer), (1, 2, 3)).relu()
    torch.testing.assert_close(result, convolve(x, end).tanh())
    assert result.shape == (2, 1, 4 * size[0], 4 * size[1])
    end.weight.data.mul_(1e3)
    assert 0.99 < decoder(content, image(2, 3)).abs().max() <= 1


def test_each_image_of_a_batch_is_made_with_its_own_attributes():
    decoder = AdaptiveDecoder(3, 2, blocks=2, hidden=5).double()
    content, codes = image(1, 8, 6, 4).expand(2, -1, -1, -1), image(2, 3)
    one, other = decoder(content, codes)
    assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(decoder(content[1:], codes[1:])[0], other)


def test_the_discriminator_judges_the_image_at_three_resolutions():
    network, images = MultiScaleDiscriminator(3, layers=2).double(), image(2, 1, 64, 48)
    verdicts, ones = network(images), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert verdicts.shape == (2, 3, 16, 12)
    for i, judge in enumerate(network.scales):
        first, second, last = convolutions(judge)
        x = F.leaky_relu(convolve(images, first, 2), 0.2)
        x = F.leaky_relu(convolve(x, second, 2), 0.2)
        x = F.conv2d(x, last.weight, last.bias)
        repeated = x.repeat_interleave(2**i, dim=2).repeat_interleave(2**i, dim=3)
        torch.testing.assert_close(verdicts[:, i : i + 1], repeated)
        # The mean of those of 3x3 pixels that are there.
        known = F.conv2d(torch.ones_like(images), ones, padding=1)
        images = (F.conv2d(images, ones, padding=1) / known)[..., ::2, ::2]
