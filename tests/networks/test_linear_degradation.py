"""The learnable degradation against its formula written out, and what it cannot do however it is trained."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.special import erf
from scipy.stats import rice

from common.networks import JoinBands, LinearDegradation, ReceiverNoise

CASES = {
    "truncation": {"factors": (2, 2, 2), "offset": (0, 0, 0)},
    "blocks": {"factors": (2, 2, 2), "offset": (0.5, 0.5, 0.5)},
    "in_plane": {"factors": (2, 2, 1), "offset": (0, 0, 0)},
    "threes": {"factors": (3, 3, 2), "offset": (1, 1, 0.5)},
    "slice_selected": {"factors": (1, 1, 4), "offset": (0, 0, 1.5), "fourier_encoded": (True, True, False)},
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def degradation_of(case, seed=0, **changes):
    """A degradation whose windows are anything that they can be."""
    generator = torch.Generator().manual_seed(seed)
    network = LinearDegradation(**case, **{"radius": 5, "margin": 6} | changes)
    for decay in network.decays:
        decay.data = torch.rand(decay.shape, generator=generator)
    return network


def window(decay, end, frequency):
    """exp(-cumulated squares) at equidistant frequencies, linear between, level beyond the last."""
    nodes = np.exp(-np.concatenate([[0], np.cumsum(decay.detach().double().numpy() ** 2)]))
    return np.interp(frequency, np.linspace(0, end, len(nodes)), nodes)


def kernel_written_out(decay, factor, offset, encoded, radius):
    """Taps (positions relative to the LR voxel's centre) and weights of one axis."""
    if factor == 1:
        return np.array([0.0]), np.array([1.0])
    taps = np.array([d for d in np.arange(-50, 51) - offset if abs(d) <= radius])
    frequency = (np.arange(200_000) + 0.5) / 400_000
    shape = window(decay, 0.5 / factor if encoded else 0.5, frequency)
    weights = np.array([(shape * np.cos(2 * np.pi * frequency * d)).mean() for d in taps])
    return taps, weights / weights.sum()


@every_case
def test_it_is_a_convolution_and_sampling(case):
    network = degradation_of(case)
    size = tuple(4 * f + 2 * network.margin for f in case["factors"])
    volume = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))
    expected = volume.double().numpy()
    encoded = case.get("fourier_encoded", (True,) * 3)
    for axis in range(3):
        factor, offset = case["factors"][axis], case["offset"][axis]
        taps, weights = kernel_written_out(network.decays[axis], factor, offset, encoded[axis], radius=5)
        rows = []
        for i in range(4):
            centre = network.margin + factor * i + offset
            places = [round(centre + d) for d in taps]
            assert np.allclose(places, centre + taps)  # every tap lies on a voxel
            rows.append(np.tensordot(weights, expected.take(places, axis=axis + 2), axes=(0, axis + 2)))
        expected = np.stack(rows, axis=axis + 2)
    assert np.allclose(network(volume).detach().numpy(), expected, atol=2e-6)


@every_case
def test_the_mean_and_the_position_are_kept_whatever_it_learns(case):
    """A sum of 1 keeps constants and symmetry keeps ramps, so contrast and place cannot drift."""
    network = degradation_of(case, seed=3)
    size = tuple(3 * f + 2 * network.margin for f in case["factors"])
    assert torch.allclose(network(torch.full((1, 1, *size), 0.8)), torch.tensor(0.8), atol=1e-6)
    for axis, (factor, offset) in enumerate(zip(case["factors"], case["offset"], strict=True)):
        kernel = network.kernels()[axis]
        assert torch.allclose(kernel, kernel.flip(0), atol=1e-7) and abs(kernel.sum().item() - 1) < 1e-6
        ramp = torch.arange(size[axis]) - network.margin  # 0 at HR voxel 0 of the slab
        ramp = ramp.float().reshape([-1 if a == axis else 1 for a in range(3)]).expand(size)
        lr = network(ramp[None, None])[0, 0].movedim(axis, 0)
        centres = (factor * torch.arange(3) + offset).reshape(3, 1, 1)
        assert torch.allclose(lr, centres.expand_as(lr).float(), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_filter_never_rises_and_never_amplifies(seed):
    """The transfer function of the kernel, within what a finite radius ripples."""
    network = degradation_of({"factors": (2, 3, 2), "offset": (0, 0, 0.5)}, seed, radius=40, margin=40)
    for kernel, factor, start in zip(network.kernels(), (2, 3, 2), network.starts, strict=True):
        d = start - network.margin + torch.arange(len(kernel))
        d = d - d.double().mean()
        frequency = torch.linspace(0, 0.5 / factor, 60, dtype=torch.float64)
        response = torch.cos(2 * torch.pi * frequency[:, None] * d) @ kernel.detach().double()
        assert response[0].item() == pytest.approx(1, abs=1e-6)
        assert response.max() < 1.01 and response.min() > -0.01
        assert response.diff().max() < 0.005
        assert response[-1] < 0.6  # these windows do fall


def test_it_starts_as_a_blur_of_the_lr_spacing_or_half_of_it():
    """A Gaussian of that full width at half maximum, as far as its window within the LR band has it."""
    network = LinearDegradation((2, 2, 4), (0, 0, 1.5), fourier_encoded=(True, True, False))
    for axis, (width, end) in enumerate([(1, 0.25), (1, 0.25), (4, 0.5)]):
        sigma = width / 2.3548
        frequency = np.linspace(0, end, 9)
        gaussian = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
        assert np.allclose(window(network.decays[axis], end, frequency), gaussian, atol=1e-5)


def test_it_learns_a_known_window():
    """Fitted to what another one made of noise, its kernels come within 0.005 of the other's, which peak at 0.4."""
    case = {"factors": (2, 2, 1), "offset": (0, 0, 0)}
    truth = degradation_of(case, seed=5, nodes=5)
    learner = LinearDegradation(**case, radius=5, margin=6, nodes=5)
    hr = torch.randn(1, 1, 28, 28, 13, generator=torch.Generator().manual_seed(0))
    target = truth(hr).detach()
    optimizer = torch.optim.LBFGS(learner.parameters(), max_iter=20, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = 100 * (learner(hr) - target).square().mean()
        loss.backward()
        return loss

    before = max((a - b).abs().max().item() for a, b in zip(learner.kernels(), truth.kernels(), strict=True))
    optimizer.step(closure)
    after = max((a - b).abs().max().item() for a, b in zip(learner.kernels(), truth.kernels(), strict=True))
    assert before > 0.05 and after < 0.005


def test_autocast_does_not_coarsen_the_images_that_it_makes():
    network = degradation_of(CASES["truncation"])
    hr = torch.rand(1, 1, 20, 20, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(hr)
    assert half.dtype == torch.float32 and torch.equal(half, network(hr))


def test_its_weights_are_the_windows_and_travel_as_a_state_dict():
    network = degradation_of(CASES["threes"])
    other = LinearDegradation(**CASES["threes"], radius=5, margin=6)
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(network.kernels(), other.kernels(), strict=True))


def test_slabs_that_are_turned_take_the_windows_of_the_volume_with_them():
    """Degraded and then turned, or turned and then degraded."""
    network = degradation_of({"factors": (2, 2, 2), "offset": (0.5, 0.5, 0.5)}, seed=2)
    volume = torch.rand(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    turns = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]])
    slabs = torch.cat([volume.permute(0, 1, *(turn + 2).tolist()) for turn in turns])
    expected = torch.cat([network(volume).permute(0, 1, *(turn + 2).tolist()) for turn in turns])
    torch.testing.assert_close(network(slabs, turns), expected)
    assert (network(slabs) - expected)[1:].abs().max() > 0.01


def test_bands_are_joined_where_the_gaussian_says():
    """Its taps integrate a Gaussian over pixels; at the border a constant of the second slab is still nothing."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, 1, 24, 20, 3, generator=generator), torch.rand(2, 1, 24, 20, 3, generator=generator)
    taps = np.arange(-3, 4)
    kernel = 0.5 * (erf((taps + 0.5) / 2**0.5) - erf((taps - 0.5) / 2**0.5))
    difference = (high - low).double().numpy()
    smooth = correlate1d(correlate1d(difference, kernel, axis=2), kernel, axis=3)
    expected = low.numpy() + difference - smooth / kernel.sum() ** 2
    joined = JoinBands(sigma=1.0)(low, high)
    np.testing.assert_allclose(joined[:, :, 3:-3, 3:-3], expected[:, :, 3:-3, 3:-3], atol=1e-5)
    torch.testing.assert_close(JoinBands(1.0)(low, low + 0.3), low)


def test_the_noise_is_rician():
    """As :class:`common.degradations.RicianNoise` makes it; without noise, all stays as it is, and has a gradient."""
    lr, noise = torch.tensor([0.0, 0.02, 0.2]), 0.02 * torch.randn(1, 2, 100, 100, 3, generator=torch.manual_seed(0))
    found = ReceiverNoise()(lr.expand(1, 1, 100, 100, 3), noise).flatten(0, 3)
    np.testing.assert_allclose(found.mean(0), rice.mean(lr / 0.02, scale=0.02), rtol=0.02)
    np.testing.assert_allclose(found.std(0), rice.std(lr / 0.02, scale=0.02), rtol=0.02)
    ringing = torch.tensor([-0.1, 0.0, 0.1]).expand(1, 1, 2, 2, 3).clone().requires_grad_()
    same = ReceiverNoise()(ringing, torch.zeros(1, 2, 2, 2, 3))
    torch.testing.assert_close(same, ringing, atol=2e-6, rtol=0)
    assert torch.autograd.grad(same.sum(), ringing)[0].isfinite().all()


def test_a_margin_that_the_kernel_does_not_fit_into_is_refused():
    with pytest.raises(ValueError, match=r"radius 8 .*got 7"):
        LinearDegradation((2, 2, 2), (0, 0, 0), radius=8, margin=7)
