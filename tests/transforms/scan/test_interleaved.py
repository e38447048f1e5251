"""Slices that alternate in brightness are evened out, and no others are touched."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.transforms import EvenSlicesd
from common.transforms.scan.interleaved import alternation


def stack(slices=18, noise=0.02):
    """A head whose anatomy and coil make slices differ smoothly, with noise."""
    rng = np.random.default_rng(0)
    tissue = 0.4 + 0.3 * (ndimage.gaussian_filter(rng.normal(size=(64, 64, slices)), (3, 3, 3)) > 0)
    x, z = np.linspace(-1, 1, 64), np.linspace(-1, 1, slices)
    head = x[:, None, None] ** 2 + x[:, None] ** 2 + 0.5 * z**2 < 0.9
    volume = tissue * head * (1 + 0.3 * z) + rng.normal(0, noise, tissue.shape)
    return torch.from_numpy(volume).float().clamp(0, 1)[None]


def alternating(volume, even):
    gains = torch.ones(volume.shape[3])
    gains[::2] = even
    return volume * gains


def evened(volume):
    meta = MetaTensor(volume.clone(), affine=torch.eye(4), meta={"filename_or_obj": "scan.nii.gz"})
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        result = EvenSlicesd("image")({"image": meta})["image"]
    return result, [str(warning.message) for warning in shown]


@pytest.mark.parametrize("even", [0.9, 0.97, 1.04, 1.1])
def test_alternating_slices(even):
    """They come out as they would be without, but for a brightness of all; the difference is told in per cent."""
    volume = stack()
    result, (warning,) = evened(alternating(volume, even))
    assert isinstance(result, MetaTensor)
    torch.testing.assert_close(result.as_tensor(), volume * even**0.5, rtol=0.005, atol=0)
    said = float(warning.split("brightness by ")[1].split(" %")[0])
    assert warning.startswith("scan.nii.gz: slices alternate") and said == pytest.approx(100 * abs(even - 1), abs=0.6)


@pytest.mark.parametrize(
    "volume",
    [stack(), stack(noise=0.1), alternating(stack(), 1.002), alternating(stack(9), 1.2), torch.zeros(1, 20, 20, 9)],
    ids=["even", "noisy", "too little to be seen", "too few slices", "nothing"],
)
def test_what_is_left_alone(volume):
    result, said = evened(volume)
    assert torch.equal(result.as_tensor(), volume) and not said


def test_gains_at_random_are_no_alternation():
    """Of 40 stacks of 14 slices, each slice of a brightness of its own, one in twenty may look like it."""
    volume, rng = stack(14), np.random.default_rng(1)
    found = [alternation(volume * torch.from_numpy(rng.normal(1, 0.04, 14)).float()) for _ in range(40)]
    assert sum(value != 0 for value in found) <= 2


def test_one_slice_that_is_brighter_is_no_alternation():
    volume = stack()
    volume[..., 9] *= 1.2
    assert not evened(volume)[1]
