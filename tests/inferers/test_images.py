"""Inferers of 2-D networks over the images of a volume."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from torch import nn

from common.degradations import GaussianProfile, KSpaceTruncation, choose_degradation
from common.inferers import (
    AntiAliasingInferer,
    ConsistentInferer,
    EnsembleInferer,
    InterpolatedInferer,
    OrthogonalInferer,
    SliceInsertionInferer,
    ZeroShotInferer,
)
from common.networks import RDN, SelfAntiAliasing, SliceBetween
from common.runtime.precision import apply_precision
from tests.refused import refused

VOLUME = torch.rand(1, 1, 4, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    return (
        RDN(GaussianProfile((1, 1, 3)), features=3, growth=2, blocks=1, layers=2, residual=False)
        .eval()
        .requires_grad_(False)
    )


def slow_loops(volume, network, planes):
    results = [torch.stack([network(image) for image in volume.unbind(2 + axis)], dim=2 + axis) for axis in planes]
    return sum(results) / len(planes)


@pytest.mark.parametrize(("planes", "batch"), [([0, 1], 4), ((1, 0), 1), ([0], None), ([1], 4)], ids=str)
def test_it_is_the_mean_of_slow_loops_also_of_one_size_after_another(network, planes, batch):
    inferer = OrthogonalInferer(planes, batch)
    for shape in ((2, 1, 6, 5, 4), (1, 1, 4, 7, 5)):
        volume, seen = torch.rand(shape), []
        result = inferer(MetaTensor(volume), lambda x, seen=seen: seen.append(x) or network(x))
        torch.testing.assert_close(result, slow_loops(volume, network, planes))
        assert {type(x) for x in [result, *seen]} == {torch.Tensor}
        counts = [len(x) for x in seen]
        assert max(counts) == (batch or 1) and sum(counts) == shape[0] * sum(shape[2 + axis] for axis in planes)


def test_both_directions_are_the_default_and_the_network_gets_its_arguments(network):
    torch.testing.assert_close(OrthogonalInferer()(VOLUME, network), slow_loops(VOLUME, network, (0, 1)))
    result = OrthogonalInferer()(VOLUME, lambda x, shift, scale: scale * x + shift, 1.0, scale=2.0)
    torch.testing.assert_close(result, 2 * VOLUME + 1)


class AlongRows(nn.Module):
    """Cumulative sums along the axis in plane, or their squares: in another order, another result."""

    def __init__(self, squared=False):
        super().__init__()
        self.squared = squared

    def forward(self, images):
        return images.cumsum(dim=2).square() if self.squared else images.cumsum(dim=2)


@pytest.mark.parametrize("amp", [False, True])
def test_aliasing_is_removed_in_the_images_of_one_direction_and_blur_in_those_of_the_other(network, amp):
    volume = VOLUME.bfloat16().float() / 64
    both = SelfAntiAliasing(AlongRows(squared=True))
    both.anti_aliasing = AlongRows()
    both = apply_precision(both, "cpu", amp, None)
    across_x, across_y = (volume.cumsum(first).cumsum(second).square() for first, second in ((2, 3), (3, 2)))
    for planes, expected in (([0, 1], (across_x + across_y) / 2), ([0], across_x), ([1], across_y)):
        torch.testing.assert_close(AntiAliasingInferer(planes)(volume, both), expected)
    for plain in (SelfAntiAliasing(network, enabled=False), network, network.forward):
        torch.testing.assert_close(AntiAliasingInferer()(volume, plain), OrthogonalInferer()(volume, network))
    torch.testing.assert_close(AntiAliasingInferer()(volume, nn.Identity()), volume)


@pytest.mark.parametrize("power", [1, 2.5, 60])
def test_directions_are_combined_in_k_space(network, power):
    """Each frequency's weights are its magnitudes to a power; with a high one the larger is taken."""
    ways = [np.fft.fftn(slow_loops(VOLUME, network, [axis])[0, 0].double()) for axis in (0, 1)]
    weights = [np.abs(way) ** power for way in ways]
    mixed = sum(way * weight for way, weight in zip(ways, weights, strict=True)) / sum(weights)
    if power == 60:
        np.testing.assert_allclose(mixed, np.where(weights[0] > weights[1], *ways), atol=0.3)
    result = OrthogonalInferer(power=power)(VOLUME, network)
    np.testing.assert_allclose(result[0, 0], np.fft.ifftn(mixed).real, atol=1e-4)


def test_the_mean_is_taken_in_float32():
    assert OrthogonalInferer()(VOLUME.bfloat16(), torch.square).dtype == torch.float32


def test_refused():
    for planes in ([], [2], [0, 0], [0, 1, 2], [-1]):
        refused(lambda planes=planes: OrthogonalInferer(planes), ValueError, "planes", planes, "[0, 1], [0] or [1]")
    for power in (-1, float("nan"), True, "2"):
        refused(lambda power=power: OrthogonalInferer(power=power), ValueError, "power", power, "at least 0")


def lopsided(images):
    height, width = images.shape[2:]
    return images.square() + images * (torch.linspace(0, 1, height)[:, None] - torch.linspace(0, 3, width) ** 2)


@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_median_over_the_forms(turned):
    images = torch.rand(3, 1, 5, 7)
    results = []
    for axes, turn in itertools.product([(), (2,), (3,), (2, 3)], [False, True][: 1 + turned]):
        form = np.flip(images.numpy().swapaxes(2, 3) if turn else images.numpy(), axes)
        result = np.flip(lopsided(torch.from_numpy(form.copy())).numpy(), axes)
        results.append(result.swapaxes(2, 3) if turn else result)
    found = EnsembleInferer(SimpleInferer(), turned)(images, lopsided)
    np.testing.assert_allclose(found, np.median(results, axis=0), atol=1e-6)
    alone = EnsembleInferer(SimpleInferer(), turned, enabled=False)(images, lopsided)
    assert torch.equal(alone, lopsided(images)) and not torch.allclose(alone, found)
    volume, inferer = torch.rand(1, 1, 5, 6, 7), OrthogonalInferer([0, 1, 2], keeps_size=True)
    torch.testing.assert_close(EnsembleInferer(inferer, turned)(volume, torch.square), volume.square())


PROFILES = [GaussianProfile((1, 1, factor)) for factor in (2, 3, 4, 5.5)]


@pytest.mark.parametrize("degradation", [*PROFILES, KSpaceTruncation((1, 1, 2))], ids=str)
@pytest.mark.parametrize("batch", [None, 5])
def test_a_ramp_stays_a_ramp(degradation, batch):
    """An untrained network gives means, so linear interpolation; the ends go on as the outermost slices."""
    lr, factor, calls = torch.rand(2, 1, 6, 5, 1) * torch.arange(7.0), degradation.factors[2], []
    sr = SliceInsertionInferer(degradation, batch)(
        lr, lambda sides: calls.append(len(sides)) or SliceBetween(4, 1)(sides)
    )
    places = (np.arange(round(7 * factor)) - degradation.offset[2]) / factor
    inner = (places >= 0.5) & (places <= 5.5)
    expected = lr[..., 1:2] * torch.from_numpy(places).float()
    assert sr.shape == (2, 1, 6, 5, len(places)) and max(calls) <= (batch or 1)
    assert torch.allclose(sr[..., inner], expected[..., inner], atol=2e-2 if factor % 2 else 1e-5, rtol=0)


@pytest.mark.parametrize(("factors", "planes"), [((2, 2, 2), [0, 1, 2]), ((2, 2, 1), [2]), ((1, 1, 3), [0, 1])])
def test_parts(factors, planes):
    degradation = choose_degradation(factors)
    volume = torch.rand(1, 1, 6, 6, 6)
    forms = EnsembleInferer(OrthogonalInferer(planes, keeps_size=True), degradation.factors[0] > 1)
    expected = ConsistentInferer(InterpolatedInferer(forms, degradation), degradation, 1)

    def network(images):
        return images * torch.linspace(0, 1, images.shape[3])

    found = ZeroShotInferer(degradation)(volume, network)
    assert torch.equal(found, expected(volume, network)) and found.shape[2:] == degradation.compute_hr_size((6, 6, 6))
    plain = ZeroShotInferer(degradation, ensemble=False, iterations=0)
    assert not torch.equal(plain(volume, network), found)
