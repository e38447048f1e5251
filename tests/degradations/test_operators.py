"""Each operator against independent implementations of what a scanner does."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
from scipy.ndimage import correlate, map_coordinates

from common.degradations import (
    BandLimit,
    DegradeAndInterpolate,
    EllipticalKSpace,
    GaussianProfile,
    HammingFilter,
    InPlaneKernel,
    KSpaceTruncation,
    PartialFourier,
    RicianNoise,
    interpolate,
    make_forward_operator,
)
from common.physics.blur_kernels import make_gaussian_kernel
from tests.refused import refused


def random(*size):
    return np.random.default_rng(0).random(size)


def acquired(size):
    """Frequencies of a scan with `size` encodings, -n/2 included and n/2 not, as indices into a longer FFT."""
    return np.arange(-(size // 2), size - size // 2)


@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 1, 2), (3, 2, 5)], ids=str)
def test_truncation_is_the_textbook_crop_on_each_axis(factors):
    """In numpy: pick samples, inverse FFT, real part."""
    hr = expected = random(12, 28, 10)
    for axis, factor in enumerate(factors):
        if factor > 1:
            k_space = np.take(np.fft.fft(expected, axis=axis), acquired(hr.shape[axis] // factor), axis=axis)
            expected = np.fft.ifft(np.fft.ifftshift(k_space, axes=axis), axis=axis).real / factor
    np.testing.assert_allclose(KSpaceTruncation(factors)(torch.from_numpy(hr)), expected, atol=1e-12)


def test_truncation_is_the_3d_crop_and_scipy_where_there_is_no_nyquist_sample():
    hr = resampled = random(18, 14, 15)
    lr = KSpaceTruncation((2, 2, 3))(torch.from_numpy(hr))
    block = np.fft.fftn(hr)[np.ix_(acquired(9), acquired(7), acquired(5))]
    np.testing.assert_allclose(lr, np.fft.ifftn(np.fft.ifftshift(block)).real / 12, atol=1e-12)
    for axis, size in enumerate(lr.shape):
        resampled = scipy.signal.resample(resampled, size, axis=axis)
    np.testing.assert_allclose(lr, resampled, atol=1e-12)


@pytest.mark.parametrize("axes", [(), ((2, 0),), ((0, 1, 2),)], ids=str)
def test_ellipse_removes_the_corners_and_keeps_the_axes(axes):
    hr = random(16, 12, 9)
    after = np.fft.fftn(EllipticalKSpace(*axes)(torch.from_numpy(hr)).numpy())
    frequencies = np.meshgrid(*[np.fft.fftfreq(n) / 0.5 for n in hr.shape], indexing="ij")
    inside = sum(frequencies[axis] ** 2 for axis in (axes[0] if axes else (0, 1))) <= 1 + 1e-9
    assert 0.4 < inside.mean() < 0.9
    np.testing.assert_allclose(after, np.fft.fftn(hr) * inside, atol=1e-9)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1,)], ids=str)
def test_hamming_filter_is_scipys_window(axes):
    hr = random(16, 12, 10)
    expected = np.fft.fftn(hr)
    for axis in axes:
        window = np.fft.ifftshift(scipy.signal.windows.hamming(hr.shape[axis], sym=False))
        expected = np.moveaxis(np.moveaxis(expected, axis, -1) * window, -1, axis)
    after = HammingFilter(axes)(torch.from_numpy(hr)).numpy()
    np.testing.assert_allclose(np.fft.fftn(after), expected, atol=1e-9)


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize(("fraction", "axis"), [(0.51, 0), (5 / 8, 1), (6 / 8, 2), (7 / 8, 0), (1.0, 1)])
def test_partial_fourier_is_the_real_part_of_the_zero_filled_image(size, fraction, axis):
    hr = random(5, 6, size)
    kept = acquired(size)[: max(round(fraction * size), size // 2 + 1)]
    assert 0 in kept, "without the centre of k-space there is no image"
    zero_filled = np.zeros(hr.shape, dtype=complex)
    zero_filled[..., kept] = np.fft.fft(hr)[..., kept]
    expected = np.fft.ifft(zero_filled).real
    found = PartialFourier(fraction, axis)(torch.from_numpy(hr).movedim(-1, axis)).movedim(axis, -1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert fraction == 1 or np.abs(expected - hr).max() > 0.01


@pytest.mark.parametrize(("factor", "fwhm"), [(4, 1.0), (5, 1.0), (4, 1.5), (8, 0.5), (4 ** (1 / 3), 1.0)])
def test_slice_profile_has_its_width_and_its_centre(factor, fwhm):
    thick = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    thick[..., 4] = 1.0
    profile = GaussianProfile((1, 1, factor), fwhm=fwhm).adjoint(thick).flatten().numpy()
    position = np.arange(profile.size)
    centre = (profile * position).sum() / profile.sum()
    # The spline's tails end with the volume, which costs the last digits.
    assert centre == pytest.approx(4 * factor + (factor - 1) / 2, abs=2e-5)
    variance = (profile * (position - centre) ** 2).sum() / profile.sum()
    assert np.sqrt(8 * np.log(2) * variance) == pytest.approx(fwhm * factor, rel=1e-3)
    # Wide against a voxel, it is the Gaussian that is sampled.
    gaussian = np.exp(-4 * np.log(2) * ((position - centre) / (fwhm * factor)) ** 2)
    np.testing.assert_allclose(profile, gaussian / gaussian.sum(), atol=2e-2 if factor < 2 else 1e-3)


@pytest.mark.parametrize("fwhm", [0.5, 1.2])
def test_blurred_voxels_at_the_places_of_thick_slices_are_these_slices(fwhm):
    profile, hr = GaussianProfile((1, 1, 3), fwhm=fwhm), torch.from_numpy(random(1, 5, 6, 12))
    blurred = profile.blur(hr)
    torch.testing.assert_close(blurred[..., 1::3], profile(hr))
    torch.testing.assert_close(DegradeAndInterpolate(profile).blur(hr), blurred)
    with pytest.raises(
        TypeError, match="self-anti-aliasing needs a blur without aliasing, which KSpaceTruncation does"
    ):
        DegradeAndInterpolate(KSpaceTruncation((1, 1, 3))).blur(hr)


def test_a_profile_leaves_other_axes_alone():
    hr, profile = torch.rand(1, 4, 12, 8), GaussianProfile((1, 3, 1))
    lr = profile(hr)
    torch.testing.assert_close(lr[0, 2, :, 4], profile(hr[:, 2:3, :, 4:5])[0, 0, :, 0])
    assert lr.shape == (1, 4, 4, 8)


@pytest.mark.parametrize(("seed", "signal"), [(None, 0.0), (7, 0.0), (7, 0.05), (None, 0.5)])
def test_noise_is_rician(seed, signal):
    sigma = 0.05
    noisy = RicianNoise(sigma, seed)(torch.full((1, 40, 40, 40), signal)).flatten().numpy()
    expected = scipy.stats.rice(signal / sigma, scale=sigma)
    assert scipy.stats.kstest(noisy, expected.cdf).pvalue > 1e-3
    assert noisy.mean() == pytest.approx(expected.mean(), rel=0.01)


def test_seeded_noise_belongs_to_the_volume_and_other_noise_follows_the_global_seed():
    a, b = torch.rand(2, 1, 8, 8, 8)
    noise, unseeded = RicianNoise(0.1, seed=3), RicianNoise(0.1)
    torch.testing.assert_close(noise(torch.stack([a, b])), torch.stack([noise(a), noise(b)]), rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(RicianNoise(0.1, seed=3)(a), noise(a), rtol=0, atol=0)
    assert not torch.equal(RicianNoise(0.1, seed=4)(a), noise(a))
    added = [(noise(v) - v).flatten() for v in (a, b)]
    assert abs(torch.corrcoef(torch.stack(added))[0, 1]) < 0.2, "two volumes must not share one noise pattern"
    torch.manual_seed(0)
    first, second = unseeded(a), unseeded(a)
    torch.manual_seed(0)
    assert torch.equal(unseeded(a), first) and not torch.equal(first, second)


def test_no_noise_is_the_magnitude_with_a_finite_gradient():
    volume = torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1).requires_grad_()
    magnitude = RicianNoise(0.0)(volume)
    torch.testing.assert_close(magnitude.flatten(), torch.tensor([1.0, 0.0, 2.0]))
    (gradient,) = torch.autograd.grad(magnitude.sum(), volume)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize(("size", "factor"), [(1, 2), (5, 1), (5, 3), (13, 2)])
def test_it_is_scipys_correlation_sampled(size, factor):
    """Tap by tap, edges included; a kernel without any symmetry tells axes and directions apart."""
    kernel, hr = torch.rand(size, size, dtype=torch.float64), torch.rand(2, 12, 18, 3, dtype=torch.float64)
    expected = correlate(hr.numpy(), kernel.numpy()[None, ..., None], mode="nearest")[:, ::factor, ::factor]
    np.testing.assert_allclose(InPlaneKernel(kernel, factor)(hr), expected, atol=1e-12)


def test_kernels_that_are_none_are_refused_and_the_given_one_is_copied():
    for shape in ((4, 4), (5, 3), (5,), (1, 5, 5)):
        refused(lambda shape=shape: InPlaneKernel(torch.ones(shape), 2), ValueError, shape)
    kernel = make_gaussian_kernel(1.0, size=5)
    operator = InPlaneKernel(kernel, 2, 0.5)
    kernel.zero_()
    assert operator.kernel.sum().item() == pytest.approx(1)
    assert operator.factors == (2, 2, 1) and operator.offset == (0.5, 0.5, 0.0)


THICK = [(GaussianProfile((1, 1, 2.6)), (5, 6, 23)), (GaussianProfile((1, 1, 4)), (5, 6, 24))]


@pytest.mark.parametrize(("degradation", "size"), [*THICK, (KSpaceTruncation((2, 2, 1)), (8, 10, 3))], ids=str)
def test_it_is_the_spline_at_the_positions_of_the_voxels(degradation, size):
    hr = torch.rand(2, 1, *size, dtype=torch.float64)
    lr = degradation(hr)
    kept, upsampled = DegradeAndInterpolate(degradation)(hr), interpolate(lr, degradation)
    assert kept.shape == hr.shape and upsampled.shape[2:] == degradation.compute_hr_size(lr.shape[2:])
    for result in (kept, upsampled):
        axes = zip(result.shape[2:], degradation.factors, degradation.offset, strict=True)
        grid = np.meshgrid(*[(np.arange(n) - o) / f for n, f, o in axes], indexing="ij")
        expected = [map_coordinates(volume[0].numpy(), grid, order=3, mode="nearest") for volume in lr]
        np.testing.assert_allclose(result[:, 0], expected, atol=1e-9)


def test_a_band_limited_scan_is_sampled_on_the_grid_of_the_degradation():
    degradation = GaussianProfile((2, 2, 1))
    assert make_forward_operator(degradation, False) is degradation
    hr = torch.rand(1, 12, 16, 3, dtype=torch.float64)
    sampled = make_forward_operator(degradation, True)
    assert (sampled.factors, sampled.offset) == (degradation.factors, degradation.offset)
    limited = GaussianProfile((2, 2, 1), fwhm=0.02)(BandLimit((2, 2, 1))(hr))
    assert torch.allclose(sampled(hr), limited) and not torch.allclose(sampled(hr), degradation(hr), atol=1e-2)


def test_a_band_is_limited_along_some_axes():
    hr = torch.rand(1, 12, 12, 6)
    assert torch.equal(BandLimit((2, 2, 2), along=[True, True, False])(hr), BandLimit((2, 2, 1))(hr))
