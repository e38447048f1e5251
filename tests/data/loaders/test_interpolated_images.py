"""Patches of HR images and of the interpolated volume."""

import numpy as np
import pytest
import torch

from common.data import InterpolatedImageLoader, VolumeCache
from common.degradations import GaussianProfile, KSpaceTruncation, interpolate
from tests.refused import refused

SHAPE = (16, 12, 20)
PLACES = torch.arange(16 * 12 * 20.0).view(1, *SHAPE) + 1


def make_volumes(degradation):
    return VolumeCache(
        [{"hr": "a.nii.gz"}], lambda entry: {"hr": PLACES, "lr": degradation(PLACES[None])[0]}, ["hr", "lr"]
    )


@pytest.mark.parametrize(
    ("degradation", "planes"),
    [
        (KSpaceTruncation((2, 2, 2)), {0, 1, 2}),
        (KSpaceTruncation((2, 2, 1)), {2}),
        (GaussianProfile((1, 1, 4)), {0, 1}),
    ],
    ids=str,
)
def test_both_are_of_one_place_across_each_axis_whose_images_become_finer(degradation, planes):
    """HR voxels tell their places; there the interpolated volume is found."""
    volumes = make_volumes(degradation)
    finer = interpolate(volumes[0]["lr"], degradation, SHAPE)[0]
    loader = InterpolatedImageLoader(volumes, degradation, 8, 12, 0, "cpu")
    batch = next(iter(loader))
    found = set()
    for hr, lr in zip(batch["hr"][:, 0], batch["lr"][:, 0], strict=True):
        places = np.stack(np.unravel_index(hr.long().numpy() - 1, SHAPE))
        torch.testing.assert_close(lr, finer[tuple(places)])
        (across,) = [axis for axis in range(3) if np.ptp(places[axis]) == 0]
        rows, columns = (np.diff(places[axis], axis=i) for i, axis in enumerate({0, 1, 2} - {across}))
        assert (rows == 1).all() and (columns == 1).all() and hr.shape == (8, 8)
        found.add(across)
    assert found == planes
    again = InterpolatedImageLoader(volumes, degradation, 8, 12, 0, "cpu")
    again.set_iteration(1)
    following = iter(loader)
    loader.set_iteration(1)
    assert torch.equal(next(iter(again))["lr"], next(following)["lr"])


def test_a_patch_larger_than_a_volume_is_refused():
    degradation = KSpaceTruncation((2, 2, 2))
    refused(
        lambda: InterpolatedImageLoader(make_volumes(degradation), degradation, 14, 2, 0, "cpu"),
        ValueError, "a.nii.gz", SHAPE, "patch",
    )  # fmt: skip
