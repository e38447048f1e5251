"""Metrics against known answers and against scipy and scikit-image."""

import functools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import SSIMMetric
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter, map_coordinates

from common.metrics import (
    compute_psnr,
    compute_slices_psnr,
    compute_slices_ssim,
    compute_ssim,
    interpolate_bicubic,
    interpolate_cubic,
    measure_displacement,
    shift_volume,
)
from tests.refused import refused

TWICE, ZERO, HALF = (2, 2, 2), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)


def tissue(*shape):
    """A volume whose spectrum falls with frequency like anatomy's, and which fills its field of view."""
    noise = np.random.default_rng(0).normal(size=shape)
    volume = sum(gaussian_filter(noise, sigma, mode="wrap") * sigma**2 for sigma in (0.5, 1, 2, 4))
    return ((volume - volume.min()) / np.ptp(volume)).astype(np.float32)


def moved(volume, shifts):
    frequencies = np.meshgrid(*map(fft.fftfreq, volume.shape), indexing="ij")
    ramp = np.exp(-2j * np.pi * sum(shift * k for shift, k in zip(shifts, frequencies, strict=True)))
    return fft.ifftn(fft.fftn(volume) * ramp).real.astype(np.float32)


def baseline(volume, factors):
    spectrum = fft.fftshift(fft.fftn(volume))
    sizes = [(n, n // f) for n, f in zip(volume.shape, factors, strict=True)]
    kept = tuple(slice(n // 2 - few // 2, n // 2 - few // 2 + few) for n, few in sizes)
    lr = (fft.ifftn(fft.ifftshift(spectrum[kept])).real / np.prod(factors)).astype(np.float32)
    return interpolate_cubic(lr, factors, ZERO)


@pytest.mark.parametrize("offset", [ZERO, (0.5, 1.0, 0.0)], ids=str)
def test_cubic_is_scipys_at_each_voxels_own_position_up_to_the_border(offset):
    lr, factors = np.random.default_rng(0).random((7, 5, 9)), (2, 3, 1)
    axes = zip(lr.shape, factors, offset, strict=True)
    grid = np.meshgrid(*[(np.arange(n * f) - o) / f for n, f, o in axes], indexing="ij")
    expected = map_coordinates(lr, grid, order=3, mode="nearest")
    np.testing.assert_allclose(interpolate_cubic(lr, factors, offset), expected, atol=1e-12)


def test_cubic_of_tensors_keeps_batch_device_and_gradient_but_not_the_lr_affine():
    lr = torch.rand(2, 1, 6, 7, 8, requires_grad=True)
    up = interpolate_cubic(lr, (2, 2, 1), ZERO)
    assert up.shape == (2, 1, 12, 14, 8) and up.dtype == torch.float32
    np.testing.assert_allclose(
        up[1, 0].detach(), interpolate_cubic(lr[1, 0].detach().numpy(), (2, 2, 1), ZERO), atol=1e-6
    )
    up.sum().backward()
    assert lr.grad.abs().min() > 0
    assert type(interpolate_cubic(MetaTensor(lr.detach()), (2, 2, 1), ZERO)) is torch.Tensor


@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 4, 1), (3, 1, 1)], ids=str)
def test_bicubic_is_that_of_image_libraries(factors):
    lr = np.random.default_rng(0).random((2, 13, 17, 3)).astype(np.float32)
    up = interpolate_bicubic(torch.from_numpy(lr), factors, [(f - 1) / 2 for f in factors])
    assert up.shape == (2, 13 * factors[0], 17 * factors[1], 3)
    for volume, z in np.ndindex(2, 3):
        expected = Image.fromarray(lr[volume, ..., z]).resize(up.shape[2:0:-1], Image.Resampling.BICUBIC)
        np.testing.assert_allclose(up[volume, ..., z], expected, atol=1e-6)


def test_psnr_and_ssim_by_hand_and_monais():
    hr = np.full((4, 4, 4), 0.5)
    tensor = torch.from_numpy(hr)[None, None]
    assert compute_psnr(hr + 0.1, hr) == pytest.approx(20.0, abs=1e-4) and compute_psnr(hr, hr) == np.inf
    assert compute_psnr(tensor - 0.01, tensor) == pytest.approx(40, abs=1e-3)
    hr = tissue(20, 18, 16)
    sr = gaussian_filter(hr, 0.8)
    metric = SSIMMetric(spatial_dims=3, win_size=11, kernel_sigma=1.5, data_range=1.0)
    expected = metric(torch.from_numpy(sr)[None, None], torch.from_numpy(hr)[None, None]).item()
    assert 0.1 < expected < 0.99 and compute_ssim(sr, hr) == pytest.approx(expected, abs=1e-4)
    assert compute_ssim(torch.from_numpy(hr)[None], hr) == pytest.approx(1.0)


@pytest.mark.parametrize("slices", [[4], [1, 6, 7]], ids=str)
def test_slices_by_hand(slices):
    """Eq. 7 to 10 of Iwamoto et al. 2022 with scipy's Gaussian; no other slice has a part in it."""
    hr, sr = np.random.default_rng(0).random((2, 24, 20, 9)).astype(np.float32)
    found = compute_slices_psnr(sr, hr, slices), compute_slices_ssim(sr, hr, slices)
    expected = []
    for x, y in ((hr[..., z].astype(np.float64), sr[..., z].astype(np.float64)) for z in slices):
        mu_x, mu_y, mu_xx, mu_yy, mu_xy = (gaussian_filter(z, 1.5, radius=5) for z in (x, y, x * x, y * y, x * y))
        local = (2 * mu_x * mu_y + 0.01**2) * (2 * (mu_xy - mu_x * mu_y) + 0.03**2)
        local /= (mu_x**2 + mu_y**2 + 0.01**2) * (mu_xx - mu_x**2 + mu_yy - mu_y**2 + 0.03**2)
        expected.append((20 * np.log10(1 / np.sqrt(((x - y) ** 2).mean())), local.mean()))
    assert found == pytest.approx(np.mean(expected, axis=0), abs=1e-5)
    sr[..., [z for z in range(9) if z not in slices]] = 0
    assert (compute_slices_psnr(sr, hr, slices), compute_slices_ssim(sr, hr, slices)) == found
    assert compute_slices_psnr(hr, hr, slices) == np.inf and compute_slices_ssim(hr, hr, slices) == pytest.approx(1)


@pytest.mark.parametrize("shifts", [(0.0, 0.05, 0.3), (0.5, -1.2, 0.0), (-0.3, 5.0, 1.2)], ids=str)
def test_displacement_of_band_limited_data(shifts):
    hr = tissue(48, 40, 44)
    np.testing.assert_allclose(measure_displacement(moved(hr, shifts), baseline(hr, TWICE), TWICE), shifts, atol=0.03)


@pytest.mark.parametrize("shifts", [(0.0, 0.05, 0.3), (0.5, -0.3, 0.0)], ids=str)
@pytest.mark.parametrize("factors", [TWICE, (2, 2, 1), (1, 1, 4)], ids=str)
def test_displacement_of_cropped_anatomy_with_detail_the_lr_image_lacks(shifts, factors):
    wide, inside = tissue(64, 56, 64), (slice(8, -8),) * 3
    hr = wide[inside]
    # The borders do not move, contrast and brightness drift, and above the LR band there is detail that stands still.
    sr = np.clip(moved(wide, shifts)[inside], 0, 1) ** 0.8 * np.linspace(0.8, 1.2, 48, dtype=np.float32)[:, None, None]
    still = np.random.default_rng(1).normal(size=hr.shape).astype(np.float32)
    sr += 0.05 * (still - baseline(still, factors))
    np.testing.assert_allclose(measure_displacement(sr, baseline(hr, factors), factors), shifts, atol=0.03)


@pytest.mark.parametrize("shifts", [(0.3, -0.2, 0.1), (0.0, 2.5, -1.2)], ids=str)
def test_a_shift_is_taken_out_and_nothing_is_smoothed(shifts):
    """White noise keeps its power; away from the border, anatomy that fills the field of view is where it was."""
    wide, inside = tissue(64, 56, 64), (slice(8, -8),) * 3
    back = shift_volume(moved(wide, shifts)[inside], [-shift for shift in shifts])[inside]
    assert compute_psnr(back, wide[inside][inside]) > 45
    noise = np.random.default_rng(0).normal(size=(40, 41, 42)).astype(np.float32)
    assert shift_volume(noise, shifts)[inside].std() == pytest.approx(noise[inside].std(), rel=0.05)
    whole = shift_volume(noise, (1, 0, -2))[inside]
    np.testing.assert_allclose(whole, np.roll(noise, (1, 0, -2), (0, 1, 2))[inside], atol=1e-4)


def test_displacement_does_not_call_a_collapsed_output_well_placed():
    hr = tissue(16, 16, 16)
    assert np.isnan(measure_displacement(np.full_like(hr, 0.3), hr, TWICE)).all()
    hr[3, 3, 3] = np.nan
    refused(lambda: measure_displacement(hr, np.zeros_like(hr), TWICE), ValueError, "finite")


def test_refused():
    wrong, some = np.zeros((2, 8, 8, 8)), np.zeros((8, 8, 8))
    of_slices = [functools.partial(metric, slices=[0]) for metric in (compute_slices_psnr, compute_slices_ssim)]
    for metric in (compute_psnr, compute_ssim, *of_slices, lambda sr, hr: measure_displacement(sr, hr, TWICE)):
        refused(lambda metric=metric: metric(some, some[..., 1:]), ValueError, "(8, 8, 8) and (8, 8, 7)")
        refused(lambda metric=metric: metric(wrong, wrong), ValueError, "(X, Y, Z)", "(2, 8, 8, 8)")
        refused(lambda metric=metric: metric(some[0], some[0]), ValueError, "(X, Y, Z)", "(8, 8)")
    refused(lambda: interpolate_cubic(some[0], TWICE, ZERO), ValueError, "shape", "(8, 8)")
    for factors in ((2, 2), (0.5, 2, 2)):
        refused(lambda factors=factors: interpolate_cubic(some, factors, ZERO), ValueError, "factors", factors)
    for factors, offset in ((TWICE, HALF), ((2, 2, 1), ZERO)):
        call, words = (
            functools.partial(interpolate_bicubic, torch.zeros(4, 4, 4), factors, offset),
            ("1 for Z", "(factor - 1) / 2"),
        )
        refused(call, ValueError, list(factors), list(offset), *words)
