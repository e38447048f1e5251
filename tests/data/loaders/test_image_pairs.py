"""Pairs of images: each is what a whole image and its degradation have at one place, in the orientation asked for."""

import pytest
import torch

from common.data import ImagePairLoader
from common.data.loaders.image_pairs import ImagePairs, images_across
from common.degradations import GaussianProfile, Interpolated, KSpaceTruncation

THICKEN = GaussianProfile((1, 1, 3))
TRUNCATE = Interpolated(KSpaceTruncation((1, 2, 2)))


class Volumes:
    """What the loader reads of a VolumeCache."""

    def __init__(self, *volumes, key="lr"):
        self.items = [{key: volume[None]} for volume in volumes]
        self.data = [{key: f"volume {i}"} for i in range(len(volumes))]


def volume_of(shape):
    return 0.1 + 0.9 * torch.rand(shape, generator=torch.Generator().manual_seed(0))


def loader_of(volume, degradation=THICKEN, planes=(2,), lr_patch=(6, 4), **options):
    return ImagePairLoader(Volumes(volume), "lr", degradation, lr_patch, planes, 16, seed=0, device="cpu", **options)


def places(image, patch):
    """Where an image has a patch, mirrored in any way."""
    windows = image.unfold(0, patch.shape[0], 1).unfold(1, patch.shape[1], 1)
    forms = [patch.flip(axes) for axes in ([], [0], [1], [0, 1])]
    return [(i, tuple(p.tolist())) for i, f in enumerate(forms) for p in (windows == f).all(-1).all(-1).nonzero()]


@pytest.mark.parametrize("planes", [[0], [1], [0, 1], [2]], ids=str)
@pytest.mark.parametrize("degradation", [THICKEN, TRUNCATE], ids=["thicken", "truncate"])
def test_where_patches_lie(planes, degradation):
    volume = volume_of((12, 14, 18))
    stacks = [images for axis in planes for images in images_across(volume[None, None], axis)]
    pairs = [ImagePairs.of(images, degradation) for images in stacks]
    found = set()
    factor = degradation.factors[2]
    batch = next(iter(loader_of(volume, degradation, planes)))
    assert batch["hr"].shape == (16, 1, 6, 4 * factor) and batch["lr"].shape == (16, 1, 6, 4)
    for hr, lr in zip(batch["hr"][:, 0], batch["lr"][:, 0], strict=True):
        images = [(s, n, image[0]) for s, each in enumerate(pairs) for n, image in enumerate(each.lr)]
        ((stack, n, (form, (x, y))),) = [(s, n, place) for s, n, image in images for place in places(image, lr)]
        assert (form, (x, factor * y)) in places(pairs[stack].hr[n, 0], hr)
        found.add((stack, form))
    assert {stack for stack, _ in found} == set(range(len(pairs))) and len({form for _, form in found}) == 4


def test_the_axes_of_images():
    volume = volume_of((3, 4, 5))
    for axis, shape in {0: (3, 1, 4, 5), 1: (4, 1, 3, 5), 2: (5, 1, 3, 4)}.items():
        images, exchanged = images_across(volume[None, None], axis)
        assert images.shape == shape
        for n in range(shape[0]):
            assert torch.equal(images[n, 0], volume.select(axis, n)) and torch.equal(exchanged[n, 0], images[n, 0].T)


def test_images_are_degraded_whole():
    """A patch by itself would ring from its own borders."""
    images = volume_of((3, 1, 16, 20))
    pairs = ImagePairs.of(images, TRUNCATE)
    for image, lr in zip(images, pairs.lr, strict=True):
        torch.testing.assert_close(TRUNCATE(image), lr)
    small = ImagePairs.of(images, TRUNCATE, scale=0.5)
    torch.testing.assert_close(small.hr, GaussianProfile((1, 2, 2))(images))


def test_a_run_that_is_continued_draws_the_same():
    volume = volume_of((24, 26, 18))
    whole, rest = (
        loader_of(volume, scales=(1.0, 0.9, 0.1), lr_patch=(6, 3)),
        loader_of(volume, scales=(1.0, 0.9, 0.1), lr_patch=(6, 3)),
    )
    batches = [batch["hr"] for batch, _ in zip(whole, range(3), strict=False)]
    rest.set_iteration(2)
    assert torch.equal(next(iter(rest))["hr"], batches[2]) and not torch.equal(batches[1], batches[2])


def test_what_is_refused():
    volume = volume_of((9, 14, 18))
    with pytest.raises(
        ValueError, match=r"volume 0: .* lr volume of \(9, 14, 18\) voxels \[\(9, 4\), \(14, 3\)\] pixels"
    ):
        loader_of(volume, lr_patch=(10, 4))
    loader_of(volume, planes=[0])
    for planes in ([], [3]):
        with pytest.raises(ValueError, match=r"planes is .*expected some of 0, 1 and 2"):
            loader_of(volume, planes=planes)
