"""k-space operators against independent implementations of what a scanner samples."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from common.degradations import EllipticalKSpace, KSpaceTruncation, PartialFourier


def acquired(size):
    """Frequencies of a scan with `size` encodings, -n/2 included and n/2 not, as indices into a longer FFT."""
    return np.arange(-(size // 2), size - size // 2)


def crop_one_axis(volume, axis, factor):
    """The plain textbook implementation in numpy: pick samples, inverse FFT, real part."""
    kept = acquired(volume.shape[axis] // factor)
    k_space = np.take(np.fft.fft(volume, axis=axis), kept, axis=axis)
    return np.fft.ifft(np.fft.ifftshift(k_space, axes=axis), axis=axis).real / factor


@pytest.mark.parametrize("factors", [(2, 2, 1), (2, 2, 2), (4, 1, 1), (3, 2, 5)])
@pytest.mark.parametrize("size", [(24, 20, 30), (12, 28, 10)])
def test_truncation_is_the_textbook_crop_on_each_axis(factors, size):
    hr = np.random.default_rng(0).random(size)
    expected = hr
    for axis, factor in enumerate(factors):
        if factor > 1:
            expected = crop_one_axis(expected, axis, factor)
    np.testing.assert_allclose(KSpaceTruncation(factors)(torch.from_numpy(hr)), expected, atol=1e-12)


def test_truncation_is_the_3d_crop_and_scipy_where_there_is_no_nyquist_sample():
    hr = np.random.default_rng(0).random((18, 14, 15))
    lr = KSpaceTruncation((2, 2, 3))(torch.from_numpy(hr)).numpy()
    block = np.fft.fftn(hr)[np.ix_(acquired(9), acquired(7), acquired(5))]
    np.testing.assert_allclose(lr, np.fft.ifftn(np.fft.ifftshift(block)).real / 12, atol=1e-12)
    resampled = hr
    for axis, size in enumerate(lr.shape):
        resampled = scipy.signal.resample(resampled, size, axis=axis)
    np.testing.assert_allclose(lr, resampled, atol=1e-12)


def test_truncation_of_a_positive_image_is_close_to_the_magnitude_of_the_3d_crop():
    # What papers compute: they differ only by the Nyquist planes and by the sign of ringing.
    index = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), axis=-1)
    hr = 1.0 + np.exp(-((index - 11.4) ** 2).sum(-1) / 18)
    block = np.fft.fftn(hr)[np.ix_(*[acquired(12)] * 3)]
    magnitude = np.abs(np.fft.ifftn(np.fft.ifftshift(block))) / 8
    np.testing.assert_allclose(KSpaceTruncation((2, 2, 2))(torch.from_numpy(hr)), magnitude, atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_waves_below_nyquist_come_out_as_every_fth_sample_and_above_it_not_at_all(axis, factor):
    size = 24
    factors = [1, 1, 1]
    factors[axis] = factor
    every = [slice(None)] * 3
    every[axis] = slice(None, None, factor)
    nyquist = size / factor / 2
    for cycles in range(size // 2 + 1):
        shape = [1, 1, 1]
        shape[axis] = size
        wave = 2 * math.pi * cycles * torch.arange(size, dtype=torch.float64) / size
        hr = torch.cos(wave + (0.0 if cycles == nyquist else 0.7)).reshape(shape)
        hr = hr.expand(*[size if a == axis else 4 for a in range(3)])
        gain = 1.0 if cycles < nyquist else 0.5 if cycles == nyquist else 0.0
        torch.testing.assert_close(KSpaceTruncation(factors)(hr), gain * hr[tuple(every)], atol=1e-12, rtol=0)


def test_scaled_adjoint_is_zero_filled_interpolation():
    lr = np.random.default_rng(0).random((8, 7, 6))
    sr = 8 * KSpaceTruncation((2, 2, 2)).adjoint(torch.from_numpy(lr)).numpy()
    expected = lr
    for axis, size in enumerate(sr.shape):
        expected = scipy.signal.resample(expected, size, axis=axis)
    np.testing.assert_allclose(sr, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 12, 9), (11, 16, 10)])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 1, 2), (2, 0)])
def test_ellipse_removes_the_corners_and_keeps_the_axes(size, axes):
    hr = np.random.default_rng(0).random(size)
    k_before = np.fft.fftn(hr)
    k_after = np.fft.fftn(EllipticalKSpace(axes)(torch.from_numpy(hr)).numpy())
    radius = np.zeros(size)
    for axis in axes:
        shape = [1, 1, 1]
        shape[axis] = -1
        radius = radius + (np.fft.fftfreq(size[axis]) / 0.5).reshape(shape) ** 2
    inside = radius <= 1 + 1e-9
    assert 0.4 < inside.mean() < 0.9
    np.testing.assert_allclose(k_after, k_before * inside, atol=1e-9)


def test_ellipse_spares_the_scan_time_that_protocols_claim():
    impulse = torch.zeros(1, 128, 128, 2)
    impulse[0, 0, 0, 0] = 1
    assert EllipticalKSpace()(impulse)[0, 0, 0, 0].item() == pytest.approx(math.pi / 4, abs=0.005)


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("fraction", [0.51, 5 / 8, 6 / 8, 7 / 8, 1.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_partial_fourier_is_the_real_part_of_the_zero_filled_image(size, fraction, axis):
    shape = [5, 6, 4]
    shape[axis] = size
    hr = np.random.default_rng(0).random(shape)
    kept = acquired(size)[: max(round(fraction * size), size // 2 + 1)]
    assert 0 in kept, "without the centre of k-space there is no image"
    zero_filled = np.zeros(shape, dtype=complex)
    pick = [slice(None)] * 3
    pick[axis] = kept
    zero_filled[tuple(pick)] = np.fft.fft(hr, axis=axis)[tuple(pick)]
    expected = np.fft.ifft(zero_filled, axis=axis).real
    np.testing.assert_allclose(PartialFourier(fraction, axis)(torch.from_numpy(hr)), expected, atol=1e-12)
    if fraction < 1:
        assert np.abs(expected - hr).max() > 0.01
