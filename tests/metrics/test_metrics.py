"""Metrics against known answers and against scipy and scikit-image."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import SSIMMetric
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter, map_coordinates

from common.metrics import bicubic, centre_slice_psnr, centre_slice_ssim, cubic, displacement, psnr, ssim


def _tissue(shape, seed=0):
    """A volume whose spectrum falls with frequency like anatomy's, and which fills its field of view."""
    noise = np.random.default_rng(seed).normal(size=shape)
    volume = sum(gaussian_filter(noise, sigma, mode="wrap") * sigma**2 for sigma in (0.5, 1, 2, 4))
    return ((volume - volume.min()) / np.ptp(volume)).astype(np.float32)


def _shift(volume, shifts):
    spectrum = fft.fftn(volume)
    for axis, shift in enumerate(shifts):
        ramp = np.exp(-2j * np.pi * shift * fft.fftfreq(volume.shape[axis]))
        spectrum = spectrum * ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    return fft.ifftn(spectrum).real.astype(np.float32)


def _truncate(volume, factors):
    spectrum = fft.fftshift(fft.fftn(volume))
    kept = tuple(
        slice(n // 2 - n // f // 2, n // 2 - n // f // 2 + n // f) for n, f in zip(volume.shape, factors, strict=True)
    )
    return (fft.ifftn(fft.ifftshift(spectrum[kept])).real / np.prod(factors)).astype(np.float32)


def _smooth(x, y, z):
    return np.sin(0.11 * x + 0.3) * np.cos(0.09 * y) + 0.5 * np.sin(0.07 * z + 0.05 * x)


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.5, 1.0, 0.0)])
def test_cubic_puts_every_voxel_at_its_own_position(offset):
    factors, shape = (2, 3, 1), (20, 16, 18)
    lr = _smooth(
        *np.meshgrid(*[np.arange(n) * f + o for n, f, o in zip(shape, factors, offset, strict=True)], indexing="ij")
    )
    hr = _smooth(*np.meshgrid(*[np.arange(n * f) for n, f in zip(shape, factors, strict=True)], indexing="ij"))
    # The spline's border condition is not the function's: compare five LR voxels away from it.
    inside = tuple(slice(5 * f, -5 * f) for f in factors)
    up = cubic(lr, factors, offset)
    assert up.shape == hr.shape
    assert np.abs(up - hr)[inside].max() < 1e-3
    assert np.abs(cubic(lr, factors, (0.25, 0.25, 0.25)) - hr)[inside].max() > 1e-2


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.5, 1.0, 0.0)])
def test_cubic_equals_scipy_up_to_the_border(offset):
    lr, factors = np.random.default_rng(0).random((7, 5, 9)), (2, 3, 1)
    grid = np.meshgrid(
        *[(np.arange(n * f) - o) / f for n, f, o in zip(lr.shape, factors, offset, strict=True)], indexing="ij"
    )
    expected = map_coordinates(lr, grid, order=3, mode="nearest")
    np.testing.assert_allclose(cubic(lr, factors, offset), expected, atol=1e-12)


def test_cubic_of_tensors_keeps_batch_device_and_gradient_but_not_the_lr_affine():
    lr = torch.rand(2, 1, 6, 7, 8, requires_grad=True)
    up = cubic(lr, (2, 2, 1), (0.0, 0.0, 0.0))
    assert up.shape == (2, 1, 12, 14, 8) and up.dtype == torch.float32
    np.testing.assert_allclose(
        up[1, 0].detach().numpy(), cubic(lr[1, 0].detach().numpy(), (2, 2, 1), (0.0, 0.0, 0.0)), atol=1e-6
    )
    up.sum().backward()
    assert lr.grad.abs().min() > 0
    assert type(cubic(MetaTensor(lr.detach()), (2, 2, 1), (0.0, 0.0, 0.0))) is torch.Tensor


@pytest.mark.parametrize(
    ("shape", "factors", "offset"),
    [((4, 4), (2, 2, 2), (0, 0, 0)), ((4, 4, 4), (2, 2), (0, 0, 0)), ((4, 4, 4), (0.5, 2, 2), (0, 0, 0))],
)
def test_cubic_names_what_is_wrong(shape, factors, offset):
    with pytest.raises(ValueError, match=r"shape|factors"):
        cubic(np.zeros(shape), factors, offset)


def test_psnr_by_hand():
    hr = np.full((4, 4, 4), 0.5)
    assert psnr(hr + 0.1, hr) == pytest.approx(20.0, abs=1e-4)
    assert psnr(torch.from_numpy(hr)[None, None] - 0.01, torch.from_numpy(hr)[None, None]) == pytest.approx(
        40, abs=1e-3
    )
    assert psnr(hr, hr) == float("inf")


def test_ssim_is_the_3d_gaussian_one():
    hr = _tissue((20, 18, 16))
    sr = gaussian_filter(hr, 0.8)
    metric = SSIMMetric(spatial_dims=3, win_size=11, kernel_sigma=1.5, data_range=1.0)
    expected = metric(torch.from_numpy(sr)[None, None], torch.from_numpy(hr)[None, None]).item()
    assert 0.1 < expected < 0.99
    assert ssim(sr, hr) == pytest.approx(expected, abs=1e-4)
    assert ssim(torch.from_numpy(hr)[None], hr) == pytest.approx(1.0)


@pytest.mark.parametrize("shapes", [((8, 8, 8), (8, 8, 9)), ((2, 8, 8, 8), (2, 8, 8, 8)), ((8, 8), (8, 8))])
@pytest.mark.parametrize("metric", [psnr, ssim, lambda a, b: displacement(a, b, (2, 2, 2))])
def test_metrics_take_two_volumes_of_one_shape(metric, shapes):
    with pytest.raises(ValueError, match="shape"):
        metric(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("shifts", [(0.0, 0.05, 0.3), (0.5, -1.2, 0.0), (-0.3, 5.0, 1.2)])
def test_displacement_of_band_limited_data(shifts):
    hr = _tissue((48, 40, 44))
    reference = cubic(_truncate(hr, (2, 2, 2)), (2, 2, 2), (0.0, 0.0, 0.0))
    np.testing.assert_allclose(displacement(_shift(hr, shifts), reference, (2, 2, 2)), shifts, atol=0.03)


@pytest.mark.parametrize("shifts", [(0.0, 0.05, 0.3), (0.5, -0.3, 0.0)])
@pytest.mark.parametrize("factors", [(2, 2, 2), (2, 2, 1), (1, 1, 4)])
def test_displacement_of_cropped_anatomy_with_detail_the_lr_image_lacks(factors, shifts):
    wide = _tissue((64, 56, 64))
    inside = (slice(8, -8),) * 3
    hr = wide[inside]
    reference = cubic(_truncate(hr, factors), factors, (0.0, 0.0, 0.0))
    # The borders do not move, contrast and brightness drift, and above the LR band there is detail that stands still.
    sr = _shift(wide, shifts)[inside]
    still = np.random.default_rng(1).normal(size=hr.shape).astype(np.float32)
    still -= cubic(_truncate(still, factors), factors, (0.0, 0.0, 0.0))
    sr = np.clip(sr, 0, 1) ** 0.8 * np.linspace(0.8, 1.2, hr.shape[0], dtype=np.float32)[:, None, None] + 0.05 * still
    np.testing.assert_allclose(displacement(sr, reference, factors), shifts, atol=0.03)


def test_displacement_of_a_half_voxel_misplaced_baseline():
    hr = _tissue((48, 48, 48))
    lr = _truncate(hr, (2, 2, 2))
    right, wrong = (cubic(lr, (2, 2, 2), (o, o, o)) for o in (0.0, 0.5))
    np.testing.assert_allclose(displacement(wrong, right, (2, 2, 2)), (0.5, 0.5, 0.5), atol=0.03)


def test_displacement_does_not_call_a_collapsed_output_well_placed():
    hr = _tissue((16, 16, 16))
    assert np.isnan(displacement(np.full_like(hr, 0.3), hr, (2, 2, 2))).all()
    hr[3, 3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        displacement(hr, np.zeros_like(hr), (2, 2, 2))


@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 4, 1), (3, 1, 1)])
def test_bicubic_is_that_of_image_libraries(factors):
    lr = np.random.default_rng(0).random((2, 13, 17, 3)).astype(np.float32)
    up = bicubic(torch.from_numpy(lr), factors, [(f - 1) / 2 for f in factors])
    assert up.shape == (2, 13 * factors[0], 17 * factors[1], 3)
    for volume in range(2):
        for z in range(3):
            expected = Image.fromarray(lr[volume, ..., z]).resize(up.shape[2:0:-1], Image.Resampling.BICUBIC)
            np.testing.assert_allclose(up[volume, ..., z], expected, atol=1e-6)


@pytest.mark.parametrize(("factors", "offset"), [((2, 2, 2), (0.5, 0.5, 0.5)), ((2, 2, 1), (0, 0, 0))])
def test_bicubic_refuses_what_image_libraries_would_misplace(factors, offset):
    with pytest.raises(ValueError, match=r"found the factors .* expected 1 for Z and the offset \(factor - 1\) / 2"):
        bicubic(torch.zeros(4, 4, 4), factors, offset)


@pytest.mark.parametrize("slices", [8, 9])
def test_the_centre_slice_by_hand(slices):
    """Eq. 7 to 10 of Iwamoto et al. 2022 with scipy's Gaussian; no other slice has a part in it."""
    rng = np.random.default_rng(0)
    hr, sr = rng.random((2, 24, 20, slices)).astype(np.float32)
    before = centre_slice_psnr(sr, hr), centre_slice_ssim(sr, hr)
    x, y = (volume[:, :, slices // 2].astype(np.float64) for volume in (hr, sr))
    assert before[0] == pytest.approx(20 * np.log10(1 / np.sqrt(((x - y) ** 2).mean())), abs=1e-5)

    def mean(image):
        return gaussian_filter(image, 1.5, radius=5)

    c1, c2 = 0.01**2, 0.03**2
    variances, covariance = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2, mean(x * y) - mean(x) * mean(y)
    local = (2 * mean(x) * mean(y) + c1) * (2 * covariance + c2)
    local /= (mean(x) ** 2 + mean(y) ** 2 + c1) * (variances + c2)
    assert before[1] == pytest.approx(local.mean(), abs=1e-5)
    others = np.arange(slices) != slices // 2
    sr[..., others] = 0
    assert (centre_slice_psnr(sr, hr), centre_slice_ssim(sr, hr)) == before
    assert centre_slice_psnr(hr, hr) == np.inf and centre_slice_ssim(hr, hr) == pytest.approx(1)
