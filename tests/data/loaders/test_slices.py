"""Patches of slices: where they come from, how they are turned and rescaled, and that the guide goes with them."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.data import KernelSliceLoader, SliceLoader
from common.degradations import GaussianProfile, InPlaneKernel
from common.networks import KernelSampling
from tests.data.loaders.drawn import cache, check_draws, check_shares, noise, take
from tests.refused import refused

PATCH, MARGIN = 8, 5
ANGLES, SCALES, LEVELS = range(0, 360, 15), [1.0, 0.7, 0.5], [0.0, 0.2]
KERNELS = noise(3, 11, 11)[0] / 60


def loader_of(*volumes, kernels=None, levels=LEVELS, **changes):
    volumes = volumes or [{"hr": noise(20, 18, 3, seed=i), "guide": noise(20, 18, 3, seed=i + 5)} for i in range(2)]
    options = {"patch": PATCH, "margin": MARGIN, "angle_step": 15, "scales": SCALES, "guide_shift": 0.0}
    options |= {"batch_size": 4, "seed": 0, "device": "cpu", **changes}
    if kernels is None:
        return SliceLoader(cache(*volumes), **options)
    return KernelSliceLoader(cache(*volumes), kernels, levels, 2, **options)


@pytest.mark.parametrize("kernels", [None, KERNELS])
def test_a_batch_is_a_function_of_seed_and_iteration_and_shared_by_processes(kernels, monkeypatch):
    outer, inner = PATCH + 2 * MARGIN, slice(MARGIN, MARGIN + PATCH)
    sizes = {"hr": (4, 1, PATCH, PATCH, 1), "hr_context": (4, 1, outer, outer, 1), "guide": (4, 1, PATCH, PATCH, 1)}
    sizes |= {} if kernels is None else {"kernel": (4, 11, 11), "noise": (4, 2, PATCH // 2, PATCH // 2, 1)}
    make = partial(loader_of, kernels=kernels)
    for batch in check_draws(make, "hr"):
        assert {key: tuple(value.shape) for key, value in batch.items()} == sizes
        assert torch.equal(batch["hr"], batch["hr_context"][:, :, inner, inner])
    assert take(loader_of({"hr": noise(20, 18, 3)}), 1)[0]["guide"].shape == (4, 0, PATCH, PATCH, 1)
    check_shares(make, monkeypatch)


def resampled(plane, centre, patch, angle, scale, mirrored):
    """A window with its margin about a point of a plane (H, W), in float64, of the whole plane."""
    size = patch + 2 * MARGIN
    source = math.floor(size / scale + 0.5)
    i, j = torch.meshgrid(*[torch.arange(source, dtype=torch.float64) - (source - 1) / 2] * 2, indexing="ij")
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    places = torch.stack([centre[1] + sin * i + cos * j, centre[0] + cos * i - sin * j], dim=-1)
    grid = 2 * places / torch.tensor([plane.shape[1] - 1, plane.shape[0] - 1]) - 1
    window = F.grid_sample(plane[None, None].double(), grid[None], "bicubic", "border", align_corners=True)[0]
    window = GaussianProfile((source / size, source / size, 1))(window[..., None])
    return window.flip(1) if mirrored else window


SLOPE = math.tan(math.radians(78.75))  # half way between the angles, and of mirrored ones


def coded(*shape):
    """A volume whose voxels say where they are, and whose slope how a patch is turned."""
    x, y, z = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    return (x + SLOPE * y + 1000 * z + 1)[None]


def decode(patch, shape):
    """Centre of a patch (p, p) of a coded volume, as the nearest that is whole or half, its slice and its pose."""
    p, first = len(patch), (len(patch) - 1) // 2
    middle = patch[first : p - first, first : p - first]  # one pixel, or two by two
    apart = patch[first - 1 : p - first + 1, first - 1 : p - first + 1]
    slopes = [(apart.select(axis, -1) - apart.select(axis, 0))[1:-1].mean() / (len(apart) - 1) for axis in (0, 1)]

    def difference(pose):
        angle, scale, mirrored = pose
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        outer = p + 2 * MARGIN
        step = math.floor(outer / scale + 0.5) / outer
        expected = (-1) ** mirrored * step * (cos + SLOPE * sin), step * (SLOPE * cos - sin)
        return sum(abs(found.item() - slope) for found, slope in zip(slopes, expected, strict=True))

    half = (p - 1) / 2
    x, y, z = np.meshgrid(*[np.arange(n - p + 1) + half for n in shape[:2]], np.arange(shape[2]), indexing="ij")
    where = np.abs(x + SLOPE * y + 1000 * z + 1 - middle.mean().item()).argmin()
    return np.array([x.flat[where], y.flat[where]]), int(z.flat[where]), min(ALL_POSES, key=difference)


ALL_POSES = [*itertools.product(ANGLES, SCALES, (False, True))]


@pytest.mark.parametrize(("patch", "size", "kernels"), [(8, 18, None), (7, 40, None), (8, 90, KERNELS)])
def test_samples_are_turned_rescaled_and_mirrored_with_their_guide(patch, size, kernels):
    """Of volumes smaller and larger than a turned window, whose border is air."""
    volume = {"hr": noise(size, size + 3, 4), "guide": coded(size, size + 3, 4)}
    for border in (np.s_[:, :6], np.s_[:, -6:], np.s_[:, :, :6], np.s_[:, :, -6:]):
        volume["hr"][border] *= 0.01
    inner, seen, starts, levels = slice(MARGIN, MARGIN + patch), [], set(), set()
    for batch in take(loader_of(volume, kernels=kernels, patch=patch, batch_size=12), 6):
        lr = None if kernels is None else KernelSampling(2)(batch["hr_context"], batch["kernel"])
        for n in range(12):
            centre, z, pose = decode(batch["guide"][n, 0, ..., 0], volume["guide"].shape[1:])
            context = resampled(volume["hr"][0, ..., z], centre, patch, *pose)
            guide = resampled(volume["guide"][0, ..., z], centre, patch, *pose)[:, inner, inner]
            expected = {"hr_context": context, "hr": context[:, inner, inner]}
            for key, value in expected.items():
                torch.testing.assert_close(batch[key][n].double(), value.double(), rtol=0, atol=1e-5)
            torch.testing.assert_close(batch["guide"][n].double(), guide.double(), rtol=0, atol=0.01)
            if lr is not None:
                # LR pixel 0 lies on the patch's first HR pixel.
                assert any(torch.equal(batch["kernel"][n], kernel) for kernel in KERNELS)
                whole = InPlaneKernel(batch["kernel"][n], 1)(context.float())
                torch.testing.assert_close(lr[n], whole[:, inner, inner][:, ::2, ::2], rtol=0, atol=1e-5)
                levels.add(round(batch["noise"][n].std().item() / 0.2))
            seen.append(pose)
            starts.add((*centre, z))
            assert min(centre) > 4 and max(centre) < size - 2  # where tissue is
    angles, scales, mirrored = map(set, zip(*seen, strict=True))
    assert len(angles) > 15 and scales == {*SCALES} and mirrored == {False, True} and len(starts) > 30
    assert levels == (set() if kernels is None else {0, 1})


def test_none_is_mirrored_on_request():
    volume, seen = coded(40, 40, 4), set()
    for batch in take(loader_of({"hr": volume}, mirrored=0.0, batch_size=20, kernels=KERNELS), 3):
        seen |= {decode(hr[0, ..., 0], volume.shape[1:])[2] for hr in batch["hr"]}
    assert len({angle for angle, _, _ in seen}) > 15 and not any(mirrored for _, _, mirrored in seen)


def test_guides_are_shifted():
    """By as much in each direction, in pixels of the patch; HR and its guide are the same volume here."""
    volume, moved = coded(60, 60, 4), {scale: [] for scale in SCALES}
    for batch in take(loader_of({"hr": volume, "guide": volume}, guide_shift=1.5, angle_step=360, batch_size=40), 8):
        for hr, guide in zip(batch["hr"][:, 0, ..., 0], batch["guide"][:, 0, ..., 0], strict=True):
            _, _, (_, scale, _) = decode(hr, volume.shape[1:])
            moved[scale].append((guide - hr)[3:5, 3:5].mean().item())
    for scale, found in moved.items():
        reach = 1.5 / scale
        assert np.abs(found).max() <= (1 + SLOPE) * reach + 0.01 and abs(np.mean(found)) < reach
        assert np.std(found) == pytest.approx(reach * ((1 + SLOPE**2) / 3) ** 0.5, rel=0.2)


def test_refused():
    for call, words in (
        (lambda: loader_of(scales=[]), ["scales", "[]"]),
        (lambda: loader_of(scales=[1.0, 0.0]), ["scales", "[1.0, 0.0]"]),
        (lambda: loader_of(scales=[1.0, 1.2]), ["scales", "[1.0, 1.2]"]),
        (lambda: loader_of({"hr": noise(20, 7, 3)}), ["0.nii", "(20, 7, 3)", "(8, 8, 1)", "hr_patch"]),
        (lambda: loader_of(kernels=KERNELS, levels=[]), ["noise_levels", "[]"]),
        (lambda: loader_of(kernels=KERNELS, levels=[0.1, -0.1]), ["noise_levels", "-0.1"]),
    ):
        refused(call, ValueError, *words)
