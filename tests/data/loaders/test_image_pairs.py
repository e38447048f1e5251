"""Pairs of images: each is what a whole image and its degradation have at one place."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from common.data import ImagePairLoader
from common.data.loaders.image_pairs import ImagePairs, slice_images
from common.degradations import DegradeAndInterpolate, GaussianProfile, KSpaceTruncation
from tests.data.loaders.drawn import cache, check_draws, noise, origin, take
from tests.refused import refused

THICKEN = GaussianProfile((1, 1, 3))
TRUNCATE = DegradeAndInterpolate(KSpaceTruncation((1, 2, 2)))


def volume_of(*shape):
    return 0.1 + 0.9 * noise(*shape)


def loader_of(volume, degradation=THICKEN, planes=(2,), lr_patch=(6, 4), seed=0, device="cpu", **options):
    return ImagePairLoader(
        cache({"lr": volume}), "lr", degradation, lr_patch, 16, seed, device, planes=planes, **options
    )


@pytest.mark.parametrize(("planes", "degradation"), list(product([[0], [1], [0, 1], [2]], [THICKEN, TRUNCATE])))
def test_pairs_are_of_one_place(planes, degradation):
    volume, factor = volume_of(12, 14, 18), degradation.factors[2]
    pairs = [
        ImagePairs.degrade_images(images, degradation) for axis in planes for images in slice_images(volume[None], axis)
    ]
    hr, lr = ([getattr(pair, key)[:, 0].permute(1, 2, 0) for pair in pairs] for key in ("hr", "lr"))
    seen = set()
    for batch in take(loader_of(volume, degradation, planes), 3):
        for n in range(16):
            which, _, mirrored, (x, y, z) = origin(batch["hr"][n].movedim(0, -1), hr, (0, 1, 2))
            assert y % factor == 0
            expected = lr[which][x : x + 6, y // factor : y // factor + 4, z]
            assert torch.equal(batch["lr"][n, 0], expected.flip(mirrored))
            seen.add((which, mirrored))
    assert len(seen) > 3 * len(pairs)


@pytest.mark.parametrize("fwhm", [1.0, 0.6])
@pytest.mark.parametrize("factor", [2.5, 3.3])
def test_by_a_factor_that_is_not_whole_patches_are_degraded_where_they_begin(factor, fwhm):
    """One row holds positions, which stay. The other holds their squares, to which the profile adds its variance."""
    position = torch.arange(120, dtype=torch.float64)
    images = torch.stack([1000 + position, position**2 / 100]).expand(3, 1, 2, 120)
    degradation, rng = GaussianProfile((1, 1, factor), fwhm=fwhm), np.random.default_rng(0)
    pairs = ImagePairs.degrade_images(images, degradation)
    assert pairs.hr.shape[3] == degradation.compute_hr_size((1, 1, pairs.lr.shape[3]))[2]
    torch.testing.assert_close(pairs.lr[0], degradation(pairs.hr[0]))
    variance, seen = (fwhm * factor) ** 2 / (8 * np.log(2)), set()
    for _ in range(60):
        hr, lr = (patch[0] for patch in pairs.sample_patch((2, 7), rng))
        assert hr.shape == (2, math.floor(7 * factor + 0.5)) and lr.shape == (2, 7)
        row = int(hr[0, 0] < hr[1, 0])
        first, second = hr[row, :2] - 1000
        centres = first + (second - first) * (factor * position[:7] + (factor - 1) / 2)
        if centres.min() > 20 and centres.max() < 100:  # beyond the borders, the outermost columns are repeated
            torch.testing.assert_close(lr[row], 1000 + centres)
            torch.testing.assert_close(lr[1 - row], (centres**2 + variance) / 100, rtol=1e-4, atol=0)
            seen.add((row, float(second - first), round(float(first) % factor, 3)))
    assert len(seen) > 8


def test_images_are_cut_across_an_axis_and_degraded_whole():
    volume = volume_of(3, 4, 5)
    for axis, shape in {0: (3, 1, 4, 5), 1: (4, 1, 3, 5), 2: (5, 1, 3, 4)}.items():
        images, exchanged = slice_images(volume[None], axis)
        assert images.shape == shape
        for n in range(shape[0]):
            assert torch.equal(images[n, 0], volume[0].select(axis, n)) and torch.equal(exchanged[n, 0], images[n, 0].T)
    # A patch by itself would ring from its own borders.
    images = volume_of(16, 20, 3).permute(3, 0, 1, 2)
    torch.testing.assert_close(
        ImagePairs.degrade_images(images, TRUNCATE).lr, torch.stack([TRUNCATE(image) for image in images])
    )
    torch.testing.assert_close(
        ImagePairs.degrade_images(images, TRUNCATE, scale=0.5).hr, GaussianProfile((1, 2, 2))(images)
    )


def test_a_batch_is_a_function_of_the_seed_and_the_iteration():
    check_draws(partial(loader_of, volume_of(24, 26, 18), scales=(1.0, 0.9, 0.1), lr_patch=(6, 3)), "hr", "lr")


def test_refused():
    volume = volume_of(9, 14, 18)
    loader_of(volume, planes=[0])
    words = "0.nii", "lr volume", "(9, 14, 18)", "[(9, 4), (14, 3)]", "lr_patch"
    refused(lambda: loader_of(volume, lr_patch=(10, 4)), ValueError, *words)
    for planes in ([], [3]):
        refused(lambda planes=planes: loader_of(volume, planes=planes), ValueError, f"planes is {planes}")
