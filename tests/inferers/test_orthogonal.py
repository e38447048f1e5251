"""Volumes image by image in two directions: the mean of two slow loops."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.inferers import OrthogonalInferer
from common.networks import RDN


def network_of():
    torch.manual_seed(0)
    return RDN(features=3, growth=2, blocks=1, layers=2, factor=3).eval()


def slow_loops(volume, network, planes):
    results = {
        0: lambda: torch.stack([network(volume[:, :, x]) for x in range(volume.shape[2])], dim=2),
        1: lambda: torch.stack([network(volume[:, :, :, y]) for y in range(volume.shape[3])], dim=3),
    }
    return sum(results[axis]() for axis in planes) / len(planes)


@torch.no_grad()
@pytest.mark.parametrize("planes", [[0, 1], (1, 0), [0], [1]], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_it_is_the_mean_of_slow_loops(planes, batch):
    network, inferer = network_of(), OrthogonalInferer(planes, batch)
    # The same inferer is used for volumes of different sizes, one after the other.
    for shape in ((2, 1, 6, 5, 4), (1, 1, 4, 7, 5)):
        volume = torch.rand(shape)
        seen = []
        result = inferer(volume, lambda x, seen=seen: (seen.append(len(x)), network(x))[1])
        torch.testing.assert_close(result, slow_loops(volume, network, planes))
        assert max(seen) == batch and sum(seen) == shape[0] * sum(shape[2 + axis] for axis in planes)


@torch.no_grad()
def test_both_directions_are_the_default():
    network, volume = network_of(), torch.rand(1, 1, 4, 5, 3)
    torch.testing.assert_close(OrthogonalInferer()(volume, network), slow_loops(volume, network, (0, 1)))


@torch.no_grad()
@pytest.mark.parametrize("power", [1, 2.5, 60])
def test_directions_are_combined_in_k_space(power):
    """Each frequency's weights are its magnitudes to a power; with a high one the larger is taken."""
    network, volume = network_of(), torch.rand(1, 1, 4, 5, 3)
    ways = [np.fft.fftn(slow_loops(volume, network, [axis])[0, 0].double()) for axis in (0, 1)]
    weights = [np.abs(way) ** power for way in ways]
    mixed = sum(way * weight for way, weight in zip(ways, weights, strict=True)) / sum(weights)
    if power == 60:
        np.testing.assert_allclose(mixed, np.where(weights[0] > weights[1], *ways), atol=0.3)
    result = OrthogonalInferer(power=power)(volume, network)
    np.testing.assert_allclose(result[0, 0], np.fft.ifftn(mixed).real, atol=1e-4)


@torch.no_grad()
def test_a_volume_with_meta_data_reaches_the_network_without_it():
    kinds, network, inferer = [], network_of(), OrthogonalInferer()
    volume = torch.rand(1, 1, 4, 5, 3)
    result = inferer(MetaTensor(volume), lambda x: (kinds.append(type(x)), network(x))[1])
    assert set(kinds) == {torch.Tensor} == {type(result)} and torch.equal(result, inferer(volume, network))


def test_the_network_gets_its_arguments():
    volume = torch.rand(1, 1, 4, 5, 3)
    result = OrthogonalInferer()(volume, lambda x, shift, scale: scale * x + shift, 1.0, scale=2.0)
    torch.testing.assert_close(result, 2 * volume + 1)


@torch.no_grad()
def test_amp_computes_in_bf16_and_returns_float32():
    network, volume, seen = network_of(), torch.rand(1, 1, 4, 5, 3), []
    network.tail.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    full = OrthogonalInferer()(volume, network)
    half = OrthogonalInferer(amp=True, amp_kwargs={"dtype": torch.bfloat16})(volume, network)
    assert seen == [torch.float32] * 9 + [torch.bfloat16] * 9
    assert half.dtype == torch.float32 and torch.allclose(half, full, atol=0.02) and not torch.equal(half, full)
    assert not torch.equal(half, half.bfloat16().float()), "the mean is taken in float32"
    assert OrthogonalInferer()(volume.bfloat16(), torch.square).dtype == torch.float32


@pytest.mark.parametrize("planes", [[], [2], [0, 0], [0, 1, 2], [-1]], ids=str)
def test_other_planes_are_refused(planes):
    with pytest.raises(ValueError, match=r"planes is .*expected \[0, 1\], \[0\] or \[1\]"):
        OrthogonalInferer(planes)


@pytest.mark.parametrize("power", [-1, float("nan"), True, "2"], ids=str)
def test_other_powers_are_refused(power):
    with pytest.raises(ValueError, match=r"power is .*expected a number of at least 0"):
        OrthogonalInferer(power=power)
