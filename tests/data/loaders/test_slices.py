"""Patches of slices: where they come from, how they are turned and rescaled, and that the guide goes with them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.data import KernelSliceLoader, SliceLoader
from common.degradations import GaussianProfile, InPlaneKernel
from common.networks import KernelSampling
from tests.data.loaders.drawn import cache, check_draws, check_shares, choice, coin, first_voxel, noise, rng_of, take
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


@pytest.mark.parametrize(("patch", "guide_shift", "kernels"), [(8, 1.5, None), (7, 0.0, None), (8, 0.0, KERNELS)])
def test_every_sample_is_what_its_draws_say(patch, guide_shift, kernels):
    """Of volumes smaller and larger than a turned window, some of which are air; all volumes, angles, scales."""
    volumes = [{"hr": noise(n, n + 3, 4, seed=n), "guide": noise(n, n + 3, 4, seed=n + 1)} for n in (18, 40, 90)]
    for volume in volumes:
        volume["hr"][:, : volume["hr"].shape[1] // 2] *= 0.01
    inner, seen = slice(MARGIN, MARGIN + patch), set()
    loader = loader_of(*volumes, kernels=kernels, patch=patch, guide_shift=guide_shift, batch_size=12)
    for iteration, batch in enumerate(take(loader, 6), start=1):
        lr = None if kernels is None else KernelSampling(2)(batch["hr_context"], batch["kernel"])
        for n in range(12):
            rng = rng_of(0, iteration, n)
            which, volume = choice([*enumerate(volumes)], rng)
            x, y, z = first_voxel(volume["hr"], (patch, patch, 1), rng)
            centre = np.array([x, y]) + (patch - 1) / 2
            pose = choice(ANGLES, rng), choice(SCALES, rng), coin(rng)
            shift = rng.uniform(-guide_shift, guide_shift, size=2) / pose[1]
            context = resampled(volume["hr"][0, ..., z], centre, patch, *pose)
            expected = {"hr_context": context, "hr": context[:, inner, inner]}
            expected["guide"] = resampled(volume["guide"][0, ..., z], centre + shift, patch, *pose)[:, inner, inner]
            if lr is not None:
                expected["kernel"], level = choice(KERNELS, rng), choice(LEVELS, rng)
                expected["noise"] = torch.from_numpy(level * rng.standard_normal((2, 4, 4, 1), dtype=np.float32))
                # LR pixel 0 lies on the patch's first HR pixel.
                whole = InPlaneKernel(expected["kernel"], 1)(context.float())
                torch.testing.assert_close(lr[n], whole[:, inner, inner][:, ::2, ::2], rtol=0, atol=1e-5)
            for key, value in expected.items():
                torch.testing.assert_close(batch[key][n].double(), value.double(), rtol=0, atol=1e-5)
            seen.add((which, *pose[1:]))
    assert len(seen) == 18


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
