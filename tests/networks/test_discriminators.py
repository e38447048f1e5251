"""Discriminators: what they see, and the bounds that keep them from shouting."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import nn

from common.networks import PatchDiscriminator, VGGDiscriminator


@pytest.mark.parametrize("layer_norm", [False, True])
def test_vgg_gives_one_verdict_an_image_of_slabs_and_of_features(layer_norm):
    """They are its layers one by one; norms are over channels and pixels, and stand behind all but the first."""
    network = VGGDiscriminator(3, widths=(4, 8), dense=6, layer_norm=layer_norm).double()
    x = features = torch.rand(2, 3, 16, 12, dtype=torch.float64)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.weight.shape[:2] for layer in convolutions] == [(4, 3), (4, 4), (8, 4), (8, 8)]
    for i, layer in enumerate(convolutions):
        x = nn.functional.conv2d(x, layer.weight, layer.bias, stride=1 + i % 2, padding=1)
        if layer_norm and i:
            x = nn.functional.layer_norm(x, x.shape[1:])
        x = nn.functional.leaky_relu(x, 0.2)
    hidden, _, last = network.head
    verdicts = last(nn.functional.leaky_relu(hidden(x.mean(dim=(2, 3))), 0.2))
    assert verdicts.shape == (2, 1) and hidden.out_features == 6
    torch.testing.assert_close(network(features), verdicts)
    torch.testing.assert_close(network(features.permute(0, 2, 3, 1)[:, None]), verdicts)


def test_spectral_norm_bounds_every_layer_of_the_patch_discriminator():
    network = PatchDiscriminator(3, 6, 3)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for layer in layers:
        nn.init.normal_(layer.parametrizations.weight.original, std=5)
    for _ in range(40):
        network.train()(torch.rand(1, 1, 12, 12, 3))
    network.eval()
    assert [torch.linalg.svdvals(m.weight.flatten(1))[0].item() for m in layers] == pytest.approx([1] * 4, abs=0.02)


@pytest.mark.parametrize(("detail", "kernel"), [(0.0, 7), (10.0, 7), (10.0, 5)])
def test_patch_verdicts_are_those_of_the_layers_one_by_one(detail, kernel):
    """Of what a binomial low-pass in plane, and another across the slab, leaves: not of brightness or slopes."""
    network = PatchDiscriminator(3, 6, 3, kernel_size=kernel, detail=detail).double().eval()
    x = features = np.random.default_rng(0).random((2, 3, 14, 13))
    if detail:
        low = correlate1d(correlate1d(x, [0.25, 0.5, 0.25], axis=2), [0.25, 0.5, 0.25], axis=3)
        across = correlate1d(x, [-0.25, 0.5, -0.25], axis=1)[:, 1:-1]
        x = detail * np.concatenate([x - low, across], axis=1)[..., 1:-1, 1:-1]
    x, features = torch.from_numpy(x), torch.from_numpy(features)
    for i, layer in enumerate(m for m in network.modules() if isinstance(m, nn.Conv2d)):
        x = nn.functional.conv2d(nn.functional.leaky_relu(x, 0.2) if i else x, layer.weight, layer.bias)
    reach = kernel + 1 if detail else kernel - 1
    assert x.shape == (2, 1, 14 - reach, 13 - reach)
    torch.testing.assert_close(network(features), x)
    torch.testing.assert_close(network(features.permute(0, 2, 3, 1)[:, None]), x)


def test_kinds_of_slabs_are_judged_apart():
    """By the axis across the slab: no gradient of one kind reaches the last layer of another."""
    network = PatchDiscriminator(3, 6, 3, detail=0.0, slab_orientations=3).eval()
    slab = torch.rand(1, 1, 12, 12, 3, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1, -1)
    verdicts = network(slab, torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]]))
    assert verdicts.shape == (3, 1, 6, 6) and len({verdict.sum().item() for verdict in verdicts}) == 3
    for verdict, kind in zip(verdicts, (2, 1, 0), strict=True):
        (gradient,) = torch.autograd.grad(verdict.sum(), network.body[-1].bias, retain_graph=True)
        assert gradient.nonzero().tolist() == [[kind]]
