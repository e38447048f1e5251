"""Slabs across several axes, and results that agree with the scan."""

import functools
import math

import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional as F

from common.degradations import ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
from common.inferers import AxesInferer, ConsistentInferer, SlabInferer
from common.metrics.data_consistency import measure_scan_difference
from common.networks import SlabEncoder, SlabInterpolation, SlabSuperResolver, TSRCANDecoder
from common.physics.noise import estimate_noise_in_air
from tests.refused import refused

TWICE = (2, 2, 2)
TRUNCATION = KSpaceTruncation(TWICE)
SLABS = SlabInferer(TRUNCATION, 3)
VOLUME = torch.rand(1, 1, 6, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    base = SlabInterpolation(3, TWICE, (0, 0, 0))
    network = SlabSuperResolver(SlabEncoder(3, 4, 2), TSRCANDecoder(6, 4, 1, 1, 2, (2, 2), base=base)).eval()
    nn.init.normal_(network.decoder.tail.weight, std=0.1)  # it starts as the interpolation
    return network.requires_grad_(False)


def corrected(guess, lr, degradation, *args, **options):
    return ConsistentInferer(lambda inputs, network: guess, degradation, *args, **options)(lr, None)


@pytest.mark.parametrize("axes", [[2], [0, 1, 2], (1, 0)], ids=str)
def test_the_result_is_the_mean_over_axes(axes, network):
    alone = [SLABS(VOLUME.movedim(2 + axis, 4), network).movedim(4, 2 + axis) for axis in axes]
    result = AxesInferer(SLABS, axes)(MetaTensor(VOLUME), network)
    assert type(result) is torch.Tensor and result.shape == (1, 1, 12, 10, 8)
    torch.testing.assert_close(result, sum(alone) / len(axes))


def test_a_network_is_told_the_axis_across_its_slabs(network):
    network.encoder.directions = nn.Parameter(torch.randn(3, 4), requires_grad=False)
    together = AxesInferer(SLABS, [0, 1, 2], pass_axis=True)(VOLUME, network)
    alone = [AxesInferer(SLABS, [axis])(VOLUME, functools.partial(network, axis=axis)) for axis in range(3)]
    torch.testing.assert_close(together, sum(alone) / 3)
    assert (together - AxesInferer(SLABS, [0, 1, 2])(VOLUME, network)).abs().max() > 1e-3


@pytest.mark.parametrize(("operator", "offset"), [(TRUNCATION, 0.0), (GaussianProfile(TWICE), 0.5)], ids=str)
def test_mirror_images_lie_where_the_volume_does(operator, offset):
    """Of a result without error the mirror image's is the same but for the border, and the mean too."""
    assert operator.offset == (offset,) * 3
    hr = F.interpolate(torch.rand(1, 1, 3, 3, 3), size=(24, 20, 16), mode="trilinear", align_corners=True)
    lr = operator(hr) if offset else hr[..., ::2, ::2, ::2]

    def at(volume, network):
        places = [((torch.arange(2 * n) - offset) / 2).clamp(0, n - 1) / (n - 1) * 2 - 1 for n in volume.shape[2:]]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).flip(-1)[None]
        return F.grid_sample(volume, grid, align_corners=True, padding_mode="border")

    inner = (..., slice(2, -2), slice(2, -2), slice(2, -2))
    plain = AxesInferer(at, [2])(lr, None)
    both = AxesInferer(at, [2], mirrored=True, offset=operator.offset)(lr, None)
    torch.testing.assert_close(both[inner], plain[inner], atol=1e-5, rtol=0)
    assert torch.equal(both[..., -1], plain[..., -1]) == (offset == 0)
    torch.testing.assert_close(both, AxesInferer(at, [0, 1, 2], mirrored=True, offset=operator.offset)(lr, None))


def test_the_result_for_the_mirror_image_is_the_mirror_image_of_the_result(network):
    inferer = AxesInferer(SLABS, mirrored=True)
    result, mirrored = inferer(VOLUME, network), inferer(VOLUME.flip(2, 3, 4), network).flip(2, 3, 4)
    torch.testing.assert_close(result[..., :-1, :-1, :-1], mirrored[..., 1:, 1:, 1:])
    assert (result - AxesInferer(SLABS)(VOLUME, network)).abs().max() > 1e-3


@pytest.mark.parametrize("degradation", [TRUNCATION, KSpaceTruncation((2, 2, 1))], ids=str)
def test_the_result_agrees_with_the_scan(degradation):
    # Far from 0, so that the second projection changes nothing; of LR sizes without a sample at the Nyquist frequency.
    hr = torch.rand(1, 1, 14, 18, 10) + 1
    lr, guess = degradation(hr), hr + 0.1 * torch.randn_like(hr)
    result = corrected(guess, lr, degradation, iterations=1, margin=0)
    torch.testing.assert_close(degradation(result), lr, atol=1e-5, rtol=0)
    # A projection: what is orthogonal to the scan's voxels stays as it was, and the truth comes nearer, never farther.
    seen = math.prod(degradation.factors) * degradation.adjoint(degradation(result - guess))
    torch.testing.assert_close(seen, result - guess, atol=1e-5, rtol=0)
    assert (result - hr).norm() < (guess - hr).norm()
    assert torch.equal(corrected(guess, lr, degradation, iterations=0), guess)


def test_magnitudes_and_the_scan_together_come_nearer_to_the_truth_with_every_round():
    """Both sets are convex and hold the truth, so no projection leads away from it."""
    hr = (torch.rand(1, 1, 16, 16, 16) - 0.6).clamp_min(0)  # most of it is background
    lr, guess = TRUNCATION(hr), 0.3 * torch.randn(hr.shape)
    results = [corrected(guess, lr, TRUNCATION, iterations, margin=0) for iterations in range(5)]
    assert all(result.min() >= 0 for result in results[1:])
    errors = [(result - hr).norm().item() for result in results]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == 5


@pytest.mark.parametrize("factors", [TWICE, (2, 2, 1), (1, 3, 2)], ids=str)
def test_a_field_of_view_that_ends_in_tissue(factors):
    """What a scanner has cut off is no reason for ringing: errors grow by nothing, to the very border."""
    degradation = KSpaceTruncation(factors)
    head = 1 + F.interpolate(torch.rand(1, 1, 10, 10, 10), size=60, mode="trilinear")
    lr = degradation(head)[(..., *(slice(12 // f, 48 // f) for f in factors))]
    hr = head[..., 12:48, 12:48, 12:48]
    guess = hr + 0.02 * torch.randn_like(hr)
    result, periodic = corrected(guess, lr, degradation), corrected(guess, lr, degradation, margin=0)
    assert result.shape == hr.shape
    border = torch.ones_like(hr, dtype=torch.bool)
    border[..., 4:-4, 4:-4, 4:-4] = False
    for where in (border, ~border):
        assert (result - hr)[where].norm() < (guess - hr)[where].norm()
    assert (periodic - hr)[border].norm() > 1.3 * (guess - hr)[border].norm()


def test_noise_is_no_part_of_what_is_agreed_with():
    """What a network has denoised stays so, in air and in tissue; what it has missed comes back, nearly."""
    hr, missed = (F.interpolate(F.pad(torch.rand(1, 1, 3, 3, 3), [2] * 6), size=56, mode="trilinear") for _ in range(2))
    missed, clean = 0.3 * missed, TRUNCATION(hr).clamp_min(0)
    noisy = RicianNoise(0.02, seed=1)(clean)
    highest = 0.1 * (noisy - clean).norm() * hr.norm() / clean.norm()
    cases = ((hr, noisy, highest), (hr - missed, noisy, 0.5 * missed.norm()), (hr - missed, clean, 0.2 * missed.norm()))
    for guess, lr, highest in cases:
        assert (corrected(guess, lr, TRUNCATION, margin=0) - hr).norm() < highest


def test_the_same_to_the_last_bit_for_any_number_of_threads():
    hr = F.interpolate(F.pad(torch.rand(1, 1, 3, 3, 3), [2] * 6), size=88, mode="trilinear")
    lr, found = RicianNoise(0.02, seed=1)(TRUNCATION(hr).clamp_min(0)), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                (
                    corrected(hr, lr, TRUNCATION, 2),
                    estimate_noise_in_air(lr),
                    measure_scan_difference(hr, lr, [TRUNCATION])[1],
                )
            )
    finally:
        torch.set_num_threads(before)
    assert estimate_noise_in_air(lr).isfinite()
    for result, noise, missed in found[1:]:
        assert torch.equal(result, found[0][0]) and torch.equal(noise, found[0][1]) and missed == found[0][2]


def test_a_length_that_is_slow_to_transform_is_none_of_agreements():
    """Twice a prime takes four times as long; a periodic volume stays as long as it is."""
    sizes = []
    count = KSpaceTruncation(TWICE)
    count.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    for margin in (8, 0):
        corrected(torch.ones(1, 1, 178, 10, 16), torch.ones(1, 1, 89, 5, 8), count, 1, margin)
    assert sizes == [(200, 32, 32), (178, 10, 16)]


def test_refused():
    for axes in ([], [0, 0], [3], [-1]):
        refused(lambda axes=axes: AxesInferer(SLABS, axes), ValueError, axes)
    between = AxesInferer(lambda inputs, _: F.interpolate(inputs, scale_factor=2), mirrored=True, offset=(0.25, 0, 0))
    refused(lambda: between(VOLUME, None), ValueError, 0.25)
    noisy = ComposeDegradations([KSpaceTruncation(TWICE), RicianNoise(0.01)])
    refused(lambda: ConsistentInferer(SLABS, noisy), TypeError, "step 1 (RicianNoise)")
