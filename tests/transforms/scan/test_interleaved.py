"""Slices that alternate in brightness are evened out, and no others are touched."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.transforms import EvenSlicesd
from common.transforms.scan.interleaved import measure_alternation
from tests.transforms.grids import scan_of, warned


def stack(slices=18, noise=0.02):
    """A head whose anatomy and coil make slices differ smoothly, with noise."""
    rng = np.random.default_rng(0)
    tissue = 0.4 + 0.3 * (ndimage.gaussian_filter(rng.normal(size=(64, 64, slices)), (3, 3, 3)) > 0)
    x, z = np.linspace(-1, 1, 64), np.linspace(-1, 1, slices)
    head = x[:, None, None] ** 2 + x[:, None] ** 2 + 0.5 * z**2 < 0.9
    volume = tissue * head * (1 + 0.3 * z) + rng.normal(0, noise, tissue.shape)
    return torch.from_numpy(volume).float().clamp(0, 1)


def brighter(volume, slices, gain):
    volume = volume.clone()
    volume[..., slices] *= gain
    return volume


def evened(volume):
    return warned(lambda: EvenSlicesd("image")({"image": scan_of(volume.clone(), np.eye(4))})["image"])


@pytest.mark.parametrize("even", [0.9, 0.97, 1.04, 1.1])
def test_alternating_slices_are_evened_out_and_told_in_per_cent(even):
    volume = stack()
    result, (warning,) = evened(brighter(volume, np.s_[::2], even))
    torch.testing.assert_close(result.as_tensor()[0], volume * even**0.5, rtol=0.005, atol=0)
    said = float(warning.split("brightness by ")[1].split(" %")[0])
    assert warning.startswith("/d/scan.nii.gz: slices alternate") and abs(said - 100 * abs(even - 1)) < 0.6


def test_what_is_left_alone():
    for name, volume in {
        "even": stack(),
        "noisy": stack(noise=0.1),
        "too little to be seen": brighter(stack(), np.s_[::2], 1.002),
        "too few slices": brighter(stack(9), np.s_[::2], 1.2),
        "one brighter slice": brighter(stack(), 9, 1.2),
        "nothing": torch.zeros(20, 20, 9),
    }.items():
        result, said = evened(volume)
        assert torch.equal(result.as_tensor()[0], volume) and not said, name
    # Of 40 stacks of 14 slices, each slice of a brightness of its own, one in twenty may look like it.
    volume, rng = stack(14)[None], np.random.default_rng(1)
    found = [measure_alternation(volume * torch.from_numpy(rng.normal(1, 0.04, 14)).float()) for _ in range(40)]
    assert sum(value != 0 for value in found) <= 2
