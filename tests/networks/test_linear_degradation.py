"""The learnable degradation against its formula written out, and what it cannot do however it is trained."""

import numpy as np
import pytest
import torch

from common.degradations import BandLimit, KSpaceTruncation
from common.networks import LinearDegradation, ReceiverNoise

from ..refused import refused

CASES = {
    "truncation": {"factors": (2, 2, 2), "offset": (0, 0, 0)},
    "blocks": {"factors": (2, 2, 2), "offset": (0.5, 0.5, 0.5)},
    "in_plane": {"factors": (2, 2, 1), "offset": (0, 0, 0)},
    "threes": {"factors": (3, 3, 2), "offset": (1, 1, 0.5)},
    "slice_selected": {"factors": (1, 1, 4), "offset": (0, 0, 1.5), "fourier_encoded": (True, True, False)},
}


def degradation_of(case, seed=0):
    generator, network = torch.Generator().manual_seed(seed), LinearDegradation(**case, radius=5, margin=6)
    for decay in network.decays:
        decay.data = torch.rand(decay.shape, generator=generator)
    return network


def window(decay, end, frequency):
    """exp(-cumulated squares) at equidistant frequencies, linear between, level beyond the last."""
    nodes = np.exp(-np.concatenate([[0], np.cumsum(decay.detach().double().numpy() ** 2)]))
    return np.interp(frequency, np.linspace(0, end, len(nodes)), nodes)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_a_convolution_and_sampling_that_keeps_mean_and_position(case):
    """A sum of 1 keeps constants and symmetry keeps ramps, so contrast and place cannot drift."""
    network = degradation_of(case)
    size = tuple(4 * f + 2 * network.margin for f in case["factors"])
    expected = (volume := torch.rand(2, 1, *size)).double().numpy()
    for axis, (factor, offset) in enumerate(zip(case["factors"], case["offset"], strict=True)):
        taps, weights = np.array([0.0]), np.array([1.0])
        if factor > 1:  # taps lie on voxels, and are counted from the centre of the LR voxel
            taps = np.array([d for d in np.arange(-50, 51) - offset if abs(d) <= 5])
            encoded, frequency = case.get("fourier_encoded", (True,) * 3)[axis], (np.arange(200_000) + 0.5) / 400_000
            shape = window(network.decays[axis], 0.5 / factor if encoded else 0.5, frequency)
            weights = np.array([(shape * np.cos(2 * np.pi * frequency * d)).mean() for d in taps])
        centres = factor * np.arange(4) + offset
        rows = expected.take((network.margin + centres[:, None] + taps).round().astype(int), axis=axis + 2)
        expected = np.moveaxis(rows, axis + 3, -1) @ (weights / weights.sum())
        kernel = network.compute_kernels()[axis]
        assert torch.allclose(kernel, kernel.flip(0), atol=1e-7) and abs(kernel.sum().item() - 1) < 1e-6
        ramp = (torch.arange(size[axis]) - network.margin).float()  # 0 at HR voxel 0 of the slab
        lr = network(ramp.reshape([-1 if a == axis else 1 for a in range(3)]).expand(1, 1, *size)).movedim(axis + 2, -1)
        torch.testing.assert_close(lr, torch.tensor(centres).expand_as(lr).float(), atol=1e-4, rtol=1e-5)
    assert np.allclose(network(volume).detach().numpy(), expected, atol=2e-6)
    assert torch.allclose(network(torch.full((1, 1, *size), 0.8)), torch.tensor(0.8), atol=1e-6)
    network(volume).square().mean().backward()
    for decay, factor in zip(network.decays, case["factors"], strict=True):
        assert (decay.grad.abs() > 0).all() == (factor > 1), "a window that nothing depends on, or that is not learned"


def test_it_starts_as_a_blur_of_the_lr_spacing_or_half_of_it_if_the_kernel_fits_into_the_margin():
    """A Gaussian of that full width at half maximum, as far as its window within the LR band has it."""
    network = LinearDegradation((2, 2, 4), (0, 0, 1.5), fourier_encoded=(True, True, False))
    for axis, (width, end) in enumerate([(1, 0.25), (1, 0.25), (4, 0.5)]):
        frequency = np.linspace(0, end, 9)
        gaussian = np.exp(-2 * (np.pi * width / 2.3548 * frequency) ** 2)
        assert np.allclose(window(network.decays[axis], end, frequency), gaussian, atol=1e-5)
    refused(lambda: LinearDegradation((2, 2, 2), (0, 0, 0), radius=8, margin=7), ValueError, "radius 8", "7")
    assert LinearDegradation((2, 2, 2), (0, 0, 0), radius=8, margin=8).margin == 8


def test_autocast_does_not_coarsen_the_images_that_it_makes_and_its_windows_travel_as_weights():
    network, other = degradation_of(CASES["threes"]), LinearDegradation(**CASES["threes"], radius=5, margin=6)
    hr = torch.rand(1, 1, 21, 21, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(hr)
    assert half.dtype == torch.float32 and torch.equal(half, network(hr))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(hr), half)


def test_slabs_that_are_turned_take_the_windows_of_the_volume_with_them():
    network, turns = degradation_of(CASES["blocks"], seed=2), torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]])
    hr = torch.rand(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    slabs, expected = (torch.cat([x.permute(0, 1, *(t + 2)) for t in turns]) for x in (hr, network(hr)))
    torch.testing.assert_close(network(slabs, turns), expected)
    assert (network(slabs) - expected)[1:].abs().max() > 0.01


def test_noise_is_that_of_the_magnitude_of_two_channels():
    lr, noise = torch.rand(2, 1, 5, 4, 1), 0.1 * torch.randn(2, 2, 5, 4, 1)
    lr[0] *= 0.1
    magnitude = torch.complex(lr[:, 0] + noise[:, 0], noise[:, 1]).abs()
    torch.testing.assert_close(ReceiverNoise()(lr, noise), magnitude[:, None])
    ringing = torch.tensor([-0.1, 0.0, 0.1]).expand(1, 1, 2, 2, 3).clone().requires_grad_()
    same = ReceiverNoise()(ringing, torch.zeros(1, 2, 2, 2, 3))  # without noise
    torch.testing.assert_close(same, ringing, atol=2e-6, rtol=0)
    assert torch.autograd.grad(same.sum(), ringing)[0].isfinite().all()


def test_without_blur_it_truncates_k_space_and_learns_nothing():
    hr = torch.rand(1, 1, 24, 28, 32)
    network = LinearDegradation((2, 2, 2), (0, 0, 0), blur=0)
    truncation = KSpaceTruncation((2, 2, 2))
    band = BandLimit((2, 2, 2))(hr)
    lr = network(torch.nn.functional.pad(band, (network.margin,) * 6, mode="circular"))
    torch.testing.assert_close(lr, truncation(hr), atol=1e-5, rtol=0)
    lr.square().sum().backward()
    assert all((decay.grad == 0).all() for decay in network.decays)
