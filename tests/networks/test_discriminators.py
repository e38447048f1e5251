"""Discriminators: what they see, and the bounds that keep them from shouting."""

import pytest
import torch
from torch import nn

from common.networks import PatchDiscriminator, VGGDiscriminator
from common.networks.discriminators import Standardised


def test_vgg_gives_one_verdict_an_image_of_slabs_and_of_features():
    slabs = VGGDiscriminator(3, widths=(4, 8), dense=6)
    features = VGGDiscriminator(5, widths=(4, 8), dense=6)
    assert slabs(torch.rand(2, 1, 16, 12, 3)).shape == (2, 1)
    assert features(torch.rand(2, 5, 16, 12)).shape == (2, 1)
    assert sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in slabs.modules()) == 2


@pytest.mark.parametrize(
    "network",
    [VGGDiscriminator(3, (4, 8), 6), VGGDiscriminator(3, (4, 8), 6, layer_norm=True), PatchDiscriminator(3, 6, 3)],
)
def test_a_verdict_does_not_depend_on_the_rest_of_the_batch(network):
    network.train()
    with torch.no_grad():
        network(torch.rand(3, 1, 20, 20, 3))
    network.eval()
    slabs = torch.rand(3, 1, 20, 20, 3)
    assert torch.allclose(network(slabs)[:1], network(slabs[:1]), atol=1e-6)


def test_spectral_norm_bounds_every_layer_of_the_patch_discriminator():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, 6, 3)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for layer in layers:
        nn.init.normal_(layer.parametrizations.weight.original, std=5)
    with torch.no_grad():
        for _ in range(40):
            network.train()(torch.rand(1, 1, 12, 12, 3))
    assert len(layers) == 4
    network.eval()
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("detail", "kernel", "seen"), [(0.0, 7, 7), (10.0, 7, 9), (10.0, 5, 7)])
def test_a_patch_verdict_sees_its_patch_and_no_more(detail, kernel, seen):
    network = PatchDiscriminator(3, 6, 3, kernel_size=kernel, detail=detail).double()
    slab = torch.rand(1, 1, 20, 18, 3, dtype=torch.float64, requires_grad=True)
    verdicts = network(slab)
    assert verdicts.shape == (1, 1, 20 - seen + 1, 18 - seen + 1)
    (gradient,) = torch.autograd.grad(verdicts[0, 0, 4, 2], slab)
    rows, columns = gradient[0, 0].abs().amax(dim=(1, 2)) > 0, gradient[0, 0].abs().amax(dim=(0, 2)) > 0
    assert rows.nonzero().flatten().tolist() == list(range(4, 4 + seen))
    assert columns.nonzero().flatten().tolist() == list(range(2, 2 + seen))


def test_detail_is_judged_and_not_brightness_or_slopes():
    network = PatchDiscriminator(3, 6, 3, detail=10.0).eval()
    x, y, z = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), torch.arange(3.0), indexing="ij")
    slab = torch.rand(1, 1, 16, 16, 3)
    slope = 0.3 + 0.02 * x - 0.03 * y + 0.1 * z
    assert torch.allclose(network(slab + slope), network(slab), atol=1e-4)
    ripple = 0.05 * (1 - 2 * ((x + y) % 2))
    assert (network(slab + ripple) - network(slab)).abs().max() > 0.01
    # and across the slab
    between = 0.05 * torch.tensor([1.0, -1.0, 1.0])
    assert (network(slab + between) - network(slab)).abs().max() > 0.001


def test_features_are_judged_as_they_are():
    network = PatchDiscriminator(5, 6, 2, detail=0.0).eval()
    features = torch.rand(2, 5, 12, 12)
    assert network(features).shape == (2, 1, 6, 6)
    assert (network(features + 1) - network(features)).abs().max() > 0.01


def test_kinds_of_slabs_are_judged_apart():
    """By the axis across the slab: no gradient of one kind reaches the last layer of another."""
    network = PatchDiscriminator(3, 6, 3, detail=0.0, turns=3).eval()
    slab = torch.rand(1, 1, 12, 12, 3, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1, -1)
    turns = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]])
    verdicts = network(slab, turns)
    assert verdicts.shape == (3, 1, 6, 6) and len({verdict.sum().item() for verdict in verdicts}) == 3
    bias = network.body[-1].bias
    for verdict, kind in zip(verdicts, (2, 1, 0), strict=True):
        (gradient,) = torch.autograd.grad(verdict.sum(), bias, retain_graph=True)
        assert gradient.nonzero().tolist() == [[kind]]


def test_standardised_by_all_that_was_judged():
    """Mean and deviation are those of both domains together, which stay apart; in evaluation nothing is learned."""
    torch.manual_seed(0)
    network = Standardised(4, momentum=0.1)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(network.eval()(x), x)
    scale, centre = (
        torch.tensor([1e-3, 5e-3, 0.1, 2.0])[:, None, None],
        torch.tensor([0.0, 0.02, -0.1, 5.0])[:, None, None],
    )
    for _ in range(200):
        for gain in (1.0, 1.5):
            network.train()(gain * scale * torch.randn(16, 4, 8, 8) + centre)
    low, high = (network.eval()(gain * scale * torch.randn(64, 4, 16, 16) + centre) for gain in (1.0, 1.5))
    both = (0.5 + 1.5**2 / 2) ** 0.5
    for result, gain in ((low, 1.0), (high, 1.5)):
        torch.testing.assert_close(result.std(dim=(0, 2, 3)), torch.full((4,), gain / both), rtol=0.05, atol=0)
        assert result.mean(dim=(0, 2, 3)).abs().max() < 0.05


@pytest.mark.parametrize(("standardised", "apart"), [(True, True), (False, False)])
def test_features_that_vary_by_thousandths_are_told_apart(standardised, apart):
    """What an encoder gives: without standardising, all verdicts stay the same."""
    torch.manual_seed(0)
    network = PatchDiscriminator(8, 16, 3, kernel_size=3, detail=0.0, standardised=standardised)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.99))
    kernel = torch.ones(8, 1, 3, 3) / 9

    def verdicts():
        sharp = 0.003 * torch.randn(8, 8, 16, 16) + 0.02
        smooth = nn.functional.conv2d(sharp.roll(1, 0), kernel, groups=8, padding=1)[..., 1:-1, 1:-1]
        return network(sharp[..., 1:-1, 1:-1]), network(smooth)

    for _ in range(150):
        real, fake = verdicts()
        optimizer.zero_grad()
        ((real - 1).square().mean() + fake.square().mean()).backward()
        optimizer.step()
    real, fake = verdicts()
    assert ((real.mean() - fake.mean()) > 0.2) == apart
