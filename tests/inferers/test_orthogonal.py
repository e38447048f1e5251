"""Volumes image by image in two directions: the mean of two slow loops."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.degradations import GaussianProfile
from common.inferers import OrthogonalInferer
from common.networks import RDN
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
