"""Denoising takes the noise and leaves what the scan shows."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_gradient_magnitude

from common.transforms import DenoiseSlicesd
from common.transforms.denoise import estimate_noise
from tests.bundles.runs import phantom
from tests.transforms.grids import rician, scan_of

TRUTH = phantom(3, (72, 80, 8)) / 700
TISSUE = TRUTH > 0.3
AFFINE = np.array([[-1.2, 0, 0, 7], [0, 1.1, 0.4, -8], [0, -0.1, 4, 9], [0, 0, 0, 1]])


def denoised(volume):
    scan = scan_of(volume, AFFINE, "lr.nii")
    out = DenoiseSlicesd("lr", allow_missing_keys=True)({"lr": scan, "hr": 1})["lr"]
    assert out.shape == scan.shape and out.dtype == torch.float32 and torch.equal(out.affine, scan.affine)
    assert out.meta["filename_or_obj"] == "lr.nii" and np.array_equal(scan.numpy()[0], volume)
    return out.numpy()[0]


def rms(difference):
    return np.sqrt(np.mean(difference**2))


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_noise_goes_and_edges_stay(sigma):
    volume = rician(TRUTH, sigma)
    out = denoised(volume)
    slopes = np.stack([gaussian_gradient_magnitude(image, 1) for image in np.moveaxis(TRUTH, -1, 0)], axis=-1)
    for where, left in ((TISSUE, 0.7), (slopes > np.quantile(slopes, 0.95), 0.95)):
        assert rms((out - TRUTH)[where]) < left * rms((volume - TRUTH)[where])
    # Slice by slice: what one shows is not seen in the next.
    assert np.allclose(denoised(volume[..., ::-1].copy()), out[..., ::-1], atol=1e-6)


def test_any_range_and_integers_a_volume_without_noise_and_an_entry_without_a_scan():
    assert rms(denoised(TRUTH) - TRUTH) < 0.004
    flat = np.full((16, 16, 4), 3.0)
    assert np.array_equal(denoised(flat), flat)
    assert DenoiseSlicesd("lr", allow_missing_keys=True)({"hr": 1}) == {"hr": 1}
    volume = np.rint(4000 * rician(TRUTH, 0.05))
    out = denoised(volume)
    assert np.allclose(denoised(volume.astype(np.int16)), out, atol=1e-3)
    # Sums of squares of a slice in single precision would drown the noise.
    assert np.allclose(denoised(volume + 1e5) - 1e5, out, atol=2)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_the_noise_is_that_of_the_tissue_whatever_lies_around(sigma):
    volume = rician(TRUTH, sigma)
    air = np.where(TISSUE, volume, 1e-4 * np.random.default_rng(1).random(volume.shape))
    spoilt = volume.copy()
    spoilt[..., 3] += np.random.default_rng(2).normal(size=volume.shape[:2])
    for name, scan in {"Rician": volume, "stripped": volume * TISSUE, "air": air, "spoilt": spoilt}.items():
        assert estimate_noise(np.moveaxis(scan, -1, 0)) == pytest.approx(sigma, rel=0.2), name
