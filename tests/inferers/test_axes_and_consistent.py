"""Slabs across several axes, and results that agree with the scan."""

import functools

import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional as F

from common.degradations import BlockAverage, ComposeDegradations, KSpaceTruncation, RicianNoise
from common.inferers import AxesInferer, ConsistentInferer, SlabInferer
from common.networks import SlabEncoder, SlabInterpolation, SlabSuperResolver, TSRCANDecoder

TWICE = (2, 2, 2)


def slab_inferer():
    return SlabInferer(3, TWICE, (0, 0, 0))


def network_of():
    torch.manual_seed(0)
    base = SlabInterpolation(3, TWICE, (0, 0, 0))
    network = SlabSuperResolver(SlabEncoder(3, 4, 2), TSRCANDecoder(6, 4, 1, 1, 2, (2, 2), base=base)).eval()
    nn.init.normal_(network.decoder.tail.weight, std=0.1)  # it starts as the interpolation
    return network


class Given:
    """Stands for an inferer, and gives a result made before."""

    def __init__(self, result):
        self.result = result

    def __call__(self, inputs, network):
        return self.result


@torch.no_grad()
@pytest.mark.parametrize("axes", [[2], [0, 1, 2], (1, 0)], ids=str)
def test_the_mean_over_axes(axes):
    """Slabs across an axis are what the volume gives with this axis put last and the others in their order."""
    network, volume = network_of(), torch.rand(1, 1, 6, 5, 4)
    alone = {
        0: slab_inferer()(volume.permute(0, 1, 3, 4, 2), network).permute(0, 1, 4, 2, 3),
        1: slab_inferer()(volume.permute(0, 1, 2, 4, 3), network).permute(0, 1, 2, 4, 3),
        2: slab_inferer()(volume, network),
    }
    result = AxesInferer(slab_inferer(), axes)(MetaTensor(volume), network)
    assert type(result) is torch.Tensor and result.shape == (1, 1, 12, 10, 8)
    torch.testing.assert_close(result, sum(alone[axis] for axis in axes) / len(axes))


def test_a_network_is_told_the_axis_across_its_slabs():
    """Each direction is as a network of this axis alone gives it."""
    network, volume = network_of(), torch.rand(1, 1, 6, 5, 4)
    network.encoder.directions = nn.Parameter(torch.randn(3, 4))
    together = AxesInferer(slab_inferer(), [0, 1, 2], told=True)(volume, network)
    alone = [AxesInferer(slab_inferer(), [axis])(volume, functools.partial(network, axis=axis)) for axis in range(3)]
    torch.testing.assert_close(together, sum(alone) / 3)
    assert (together - AxesInferer(slab_inferer(), [0, 1, 2])(volume, network)).abs().max() > 1e-3


@pytest.mark.parametrize(("operator", "offset"), [(KSpaceTruncation(TWICE), 0.0), (BlockAverage(TWICE), 0.5)], ids=str)
def test_mirror_images_lie_where_the_volume_does(operator, offset):
    """Of a result without error the mirror image's is the same but for the border, and the mean too."""
    torch.manual_seed(0)
    assert operator.offset == (offset,) * 3
    smooth = F.interpolate(torch.rand(1, 1, 3, 3, 3), size=(24, 20, 16), mode="trilinear", align_corners=True)
    lr = operator(smooth) if offset else smooth[..., ::2, ::2, ::2]

    def at(volume, network):
        """Linear interpolation at the right places."""
        places = [((torch.arange(2 * n) - offset) / 2).clamp(0, n - 1) / (n - 1) * 2 - 1 for n in volume.shape[2:]]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).flip(-1)[None]
        return F.grid_sample(volume, grid, align_corners=True, padding_mode="border")

    inner = (..., slice(2, -2), slice(2, -2), slice(2, -2))
    plain = AxesInferer(at, [2])(lr, None)
    both = AxesInferer(at, [2], mirrored="true", offset=operator.offset)(lr, None)
    torch.testing.assert_close(both[inner], plain[inner], atol=1e-5, rtol=0)
    assert torch.equal(both[..., -1], plain[..., -1]) == (offset == 0)
    torch.testing.assert_close(both, AxesInferer(at, [0, 1, 2], mirrored=True, offset=operator.offset)(lr, None))
    with pytest.raises(ValueError, match="moved by whole voxels"):
        AxesInferer(at, [2], mirrored=True, offset=(0.25, 0, 0))(lr, None)


@torch.no_grad()
def test_mirrored_twice_is_not_mirrored():
    """With a network, the mean of both is equivariant: of the mirror image it is the mirror image."""
    network, volume = network_of(), torch.rand(1, 1, 6, 5, 4)
    inferer = AxesInferer(slab_inferer(), mirrored=True)
    result, mirrored = inferer(volume, network), inferer(volume.flip(2, 3, 4), network).flip(2, 3, 4)
    torch.testing.assert_close(result[..., :-1, :-1, :-1], mirrored[..., 1:, 1:, 1:])
    assert (result - AxesInferer(slab_inferer())(volume, network)).abs().max() > 1e-3


@pytest.mark.parametrize("axes", [[], [0, 0], [3], [-1]], ids=str)
def test_axes_that_are_none(axes):
    with pytest.raises(ValueError, match="distinct spatial axes"):
        AxesInferer(slab_inferer(), axes)


@pytest.mark.parametrize(
    "degradation", [KSpaceTruncation(TWICE), BlockAverage(TWICE), KSpaceTruncation((2, 2, 1))], ids=str
)
def test_the_result_agrees_with_the_scan(degradation):
    torch.manual_seed(0)
    # Far from 0, so that the second projection changes nothing; of LR sizes without a sample at the Nyquist frequency.
    hr = torch.rand(1, 1, 14, 18, 10) + 1
    lr = degradation(hr)
    guess = hr + 0.1 * torch.randn_like(hr)
    result = ConsistentInferer(Given(guess), degradation, iterations=1, margin=0)(lr, None)
    torch.testing.assert_close(degradation(result), lr, atol=1e-5, rtol=0)
    # A projection: what is orthogonal to the scan's voxels stays as it was, and the truth comes nearer, never farther.
    gain = torch.prod(torch.tensor(degradation.factors))
    seen = gain * degradation.adjoint(degradation(result - guess))
    torch.testing.assert_close(seen, result - guess, atol=1e-5, rtol=0)
    assert (result - hr).norm() < (guess - hr).norm()
    assert torch.equal(ConsistentInferer(Given(guess), degradation, iterations=0)(lr, None), guess)


def test_magnitudes_and_the_scan_together_come_nearer_to_the_truth_with_every_round():
    """Both sets are convex and hold the truth, so no projection leads away from it."""
    torch.manual_seed(0)
    degradation = KSpaceTruncation(TWICE)
    hr = (torch.rand(1, 1, 16, 16, 16) - 0.6).clamp_min(0)  # most of it is background
    lr, guess = degradation(hr), 0.3 * torch.randn(hr.shape)
    errors = []
    for iterations in range(5):
        result = ConsistentInferer(Given(guess), degradation, iterations, margin=0)(lr, None)
        errors.append((result - hr).norm().item())
        assert iterations == 0 or result.min() >= 0
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == 5


@pytest.mark.parametrize("factors", [TWICE, (2, 2, 1), (1, 3, 2)], ids=str)
def test_a_field_of_view_that_ends_in_tissue(factors):
    """What a scanner has cut off is no reason for ringing: errors grow by nothing, to the very border."""
    torch.manual_seed(0)
    degradation = KSpaceTruncation(factors)
    head = 1 + F.interpolate(torch.rand(1, 1, 10, 10, 10), size=60, mode="trilinear")
    lr = degradation(head)[(..., *(slice(12 // f, 48 // f) for f in factors))]
    hr = head[..., 12:48, 12:48, 12:48]
    guess = hr + 0.02 * torch.randn_like(hr)
    result = ConsistentInferer(Given(guess), degradation)(lr, None)
    assert result.shape == hr.shape
    border = torch.ones_like(hr, dtype=torch.bool)
    border[..., 4:-4, 4:-4, 4:-4] = False
    for where in (border, ~border):
        assert (result - hr)[where].norm() < (guess - hr)[where].norm()
    periodic = ConsistentInferer(Given(guess), degradation, margin=0)(lr, None)
    assert (periodic - hr)[border].norm() > 1.3 * (guess - hr)[border].norm()


def test_noise_is_no_part_of_what_is_agreed_with():
    """What a network has denoised stays so, in air and in tissue; what it has missed comes back, nearly."""
    torch.manual_seed(0)
    degradation = KSpaceTruncation(TWICE)
    hr, missed = (F.interpolate(F.pad(torch.rand(1, 1, 3, 3, 3), [2] * 6), size=56, mode="trilinear") for _ in range(2))
    missed = 0.3 * missed
    clean = degradation(hr).clamp_min(0)
    noisy = RicianNoise(0.02, seed=1)(clean)

    def error(guess, lr):
        return (ConsistentInferer(Given(guess), degradation, margin=0)(lr, None) - hr).norm() / hr.norm()

    assert error(hr, noisy) < 0.1 * (noisy - clean).norm() / clean.norm()
    assert error(hr - missed, noisy) < 0.5 * missed.norm() / hr.norm()
    assert error(hr - missed, clean) < 0.2 * missed.norm() / hr.norm()


def test_an_operator_without_an_adjoint_is_refused():
    noisy = ComposeDegradations([KSpaceTruncation(TWICE), RicianNoise(0.01)])
    with pytest.raises(TypeError, match=r"Give the linear part.*step 1 \(RicianNoise\) is not linear"):
        ConsistentInferer(slab_inferer(), noisy)
