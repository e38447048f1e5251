"""Images across the slices: where they come from, how they are turned, mirrored and given another contrast."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from common.data import ThroughPlaneLoader
from tests.data.loaders.drawn import cache, check_draws, check_shares, choice, coin, first_voxel, noise, rng_of, take
from tests.refused import refused

IN_PLANE = [(0, 1, 3, 2), (0, 2, 3, 1)]
ANY_AXIS = [(0, *axes) for axes in itertools.permutations((1, 2, 3))]


def loader_of(hr=None, lr=None, **changes):
    hr = hr or [noise(8, 9, 8, seed=i) + 0.1 for i in range(2)]
    lr = lr or [noise(9, 8, 5, seed=i) + 0.1 for i in range(2)]
    options = {"lr_patch": (6, 3), "factor": 2, "batch_size": 4, "seed": 0, "device": "cpu", "attributes": 3}
    caches = cache(*[{"hr": volume} for volume in hr]), cache(*[{"lr": volume} for volume in lr])
    return ThroughPlaneLoader(*caches, **options | changes)


@pytest.mark.parametrize("contrasts", [0, 5])
def test_a_batch_is_a_function_of_seed_and_iteration_and_shared_by_processes(contrasts, monkeypatch):
    shapes = {"hr": (4, 1, 6, 6), "hr_recoloured": (4, 1, 6, 6), "lr": (4, 1, 6, 3)}
    shapes |= {"prior_ct": (4, 3), "prior_mr": (4, 3), "gains": (4, 1, 1, 3)}
    make = partial(loader_of, contrasts=contrasts, gains=0.1)
    for batch in check_draws(make, "prior_ct", *shapes):
        assert {key: tuple(value.shape) for key, value in batch.items()} == shapes
        assert all(value.dtype == torch.float32 for value in batch.values())
        assert torch.equal(batch["hr"], batch["hr_recoloured"]) == (contrasts == 0)
    assert take(loader_of(attributes=0), 1)[0].keys() == {"hr", "hr_recoloured", "lr", "gains"}
    check_shares(make, monkeypatch)


@pytest.mark.parametrize(("contrasts", "gains", "any_axis"), [(0, 0, False), (5, 0.2, False), (3, 0, "true")])
def test_every_image_is_what_its_draws_say(contrasts, gains, any_axis):
    """HR across the slices in both directions, LR in one; bone may become darker than brain, air stays the darkest."""
    hr = [(1.1 * noise(40, 30, 24, seed=i)).clamp(max=1) for i in range(2)]
    lr = [noise(14, 13, 6, seed=2) * 1.2]
    for volume in hr:
        volume[:, 15:] *= 0.01
    loader = loader_of(hr, lr, contrasts=contrasts, gains=gains, any_axis=any_axis)
    for iteration, batch in enumerate(take(loader, 6), start=1):
        for n in range(4):
            rng = rng_of(0, iteration, n)
            expected = {}
            for key, volumes, size in (("hr", hr, (6, 6, 1)), ("lr", lr, (6, 3, 1))):
                volume = choice(volumes, rng)
                orders = ANY_AXIS if any_axis and key == "hr" else IN_PLANE
                volume = volume.permute(orders[int(rng.random() * len(orders))])
                x, z, y = first_voxel(volume, size, rng)
                image = volume[:, x : x + size[0], z : z + size[1], y]
                for axis in (1, 2) if key == "hr" else (1,):
                    image = image.flip(axis) if coin(rng) else image
                expected[key] = 2 * image - 1
                if key == "hr":
                    heights = rng.random(contrasts) if contrasts else np.array([0.0, 1.0])
                    heights[0] = 0
                    recoloured = np.interp(image.numpy(), np.linspace(0, 1, len(heights)), heights / heights.max())
                    expected["hr_recoloured"] = torch.from_numpy(2 * recoloured - 1).float()
                    logarithms = gains * rng.random() * rng.standard_normal((1, 1, 3)) if gains else np.zeros((1, 1, 3))
                    expected["gains"] = torch.from_numpy(np.exp(logarithms)).float()
            for key in ("prior_ct", "prior_mr"):
                expected[key] = torch.from_numpy(rng.standard_normal(3, dtype=np.float32))
            for key, value in expected.items():
                torch.testing.assert_close(batch[key][n], value, rtol=0, atol=1e-6)


def test_pixels_in_plane_may_be_finer_than_those_of_the_source():
    """By a factor of which the logarithm is drawn evenly; across the slices nothing changes."""
    plane = torch.arange(40.0).view(1, -1, 1, 1) / 100 + torch.arange(40.0).view(1, 1, -1, 1) / 100
    ramp = plane + torch.arange(40.0) / 50 + 0.1
    factors = []
    for batch in take(loader_of([ramp], [ramp], lr_patch=(16, 8), zoom=2.0), 100):
        down, across = (((batch["hr"]).diff(dim=axis) / 2)[:, 0, 4:-4, 4:-4].abs() for axis in (2, 3))
        assert torch.allclose(across, torch.tensor(0.02), atol=1e-4)
        assert (down - down.mean(dim=(1, 2), keepdim=True)).abs().max() < 1e-3
        factors += (0.01 / down.mean(dim=(1, 2))).tolist()
        assert torch.allclose((batch["lr"].diff(dim=2) / 2).abs(), torch.tensor(0.01), atol=1e-4)
    assert min(factors) > 0.97 and max(factors) < 2.1
    assert np.histogram(np.log2(factors), [-0.05, 1 / 3, 2 / 3, 1.05])[0].min() > 70  # of 400; whole pixels are cut


def test_options_out_of_their_range_and_volumes_that_do_not_fit_are_refused():
    for name, value in (("gains", -0.1), ("gains", np.nan), ("zoom", 0.5), ("zoom", np.inf), ("contrasts", 2)):
        refused(lambda option={name: value}: loader_of(**option), ValueError, f"{name} ", value)
    for key, needed, options, words in (
        ("hr", (6, 6, 6), {}, ["'source', 1.nii", "(6, 6, 6)", "lr_patch"]),
        ("lr", (6, 6, 3), {}, ["'target', 1.nii", "(6, 6, 3)", "lr_patch"]),
        ("hr", (8, 8, 8), {"lr_patch": (6, 4), "any_axis": True}, ["'source', 1.nii", "(6, 6, 8)", "lr_patch"]),
    ):
        fits, options = noise(*needed), {"lr": [noise(9, 9, 9)], **options}
        loader_of(**options | {key: [fits]})
        for axis in range(3):
            small = fits.narrow(axis + 1, 0, needed[axis] - 1)
            both = options | {key: [fits, small]}
            refused(lambda both=both: loader_of(**both), ValueError, tuple(small.shape[1:]), *words)
