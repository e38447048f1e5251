"""Images across the slices: where they come from, how they are turned, mirrored and given another contrast."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from common.data import ThroughPlaneLoader
from tests.data.loaders.drawn import cache, check_draws, check_shares, half_air, noise, origin, take
from tests.refused import refused

ORDERS = {
    "across": {(0, 2, 1), (1, 2, 0)},
    "any": {*itertools.permutations(range(3))},
    "slices": {(0, 1, 2), (1, 0, 2)},
}


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


@pytest.mark.parametrize(
    ("contrasts", "gains", "planes"), [(0, 0, "across"), (5, 0.2, "across"), (3, 0, "any"), (0, 0, "slices")]
)
def test_images_are_cut_mirrored_and_recoloured(contrasts, gains, planes):
    """HR of the planes that are asked for, LR across; bone may become darker than brain, air stays the darkest."""
    hr, lr = [half_air(40, 30, 24, seed=i) for i in range(2)], [noise(14, 13, 6, seed=2)]
    orders, flips, drawn = {"hr": set(), "lr": set()}, set(), []
    for batch in take(loader_of(hr, lr, contrasts=contrasts, gains=gains, planes=planes), 15):
        for n in range(4):
            for key, volumes in (("hr", hr), ("lr", lr)):
                image = (batch[key][n].movedim(0, -1) + 1) / 2
                which, order, mirrored, _ = origin(image, [volume[0] for volume in volumes])
                orders[key].add(order)
                flips.add((key, which, mirrored))
                assert key == "lr" or (image > 0.05).float().mean() > 0.15
            # The curve through its control points: 0 at 0, and 1 at the highest.
            grey, made = ((batch[key][n].numpy().ravel() + 1) / 2 for key in ("hr", "hr_recoloured"))
            points = np.linspace(0, 1, contrasts or 2)
            bent = np.stack([np.interp(grey, points, row) for row in np.eye(len(points))], axis=1)
            drawn.append(np.linalg.lstsq(bent, made)[0])
            assert np.abs(bent @ drawn[-1] - made).max() < 1e-5
    assert orders == {"hr": ORDERS[planes], "lr": ORDERS["across"]}
    both = {("hr", which, flip) for which in (0, 1) for flip in ((), (0,), (1,), (0, 1))}
    assert flips == both | {("lr", 0, ()), ("lr", 0, (0,))}
    lowest, highest = np.min(drawn, axis=0), np.max(drawn, axis=0)
    assert abs(lowest[0]) < 0.05 > abs(highest[0]) and lowest.min() > -0.05 and highest.max() < 1.05
    assert not contrasts or (highest - lowest)[1:].min() > 0.5


def test_gains_and_priors():
    """Each patch has a share of the largest deviation; attributes are normal."""
    batches = take(loader_of(gains=0.2, lr_patch=(6, 4)), 200)
    found = torch.cat([batch["gains"].log() for batch in batches]).flatten(1)
    assert found.mean().abs() < 0.01 and found.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    spread = found.std(dim=1)
    assert (spread < 0.05).float().mean() > 0.15 and (spread > 0.15).float().mean() > 0.15
    codes = [torch.cat([batch[key] for batch in batches]) for key in ("prior_ct", "prior_mr")]
    for code in codes:
        assert code.mean().abs() < 0.1 and code.std().item() == pytest.approx(1, abs=0.1)
    assert (codes[0] * codes[1]).mean().abs() < 0.1
    assert all(torch.equal(batch["gains"], torch.ones(4, 1, 1, 3)) for batch in take(loader_of(), 3))


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
    for name, value in (
        ("gains", -0.1),
        ("gains", np.nan),
        ("zoom", 0.5),
        ("zoom", np.inf),
        ("contrasts", 2),
        ("planes", "all"),
    ):
        refused(lambda option={name: value}: loader_of(**option), ValueError, f"{name} ", value)
    for key, needed, options, words in (
        ("hr", (6, 6, 6), {}, ["'source', 1.nii", "(6, 6, 6)", "lr_patch"]),
        ("lr", (6, 6, 3), {}, ["'target', 1.nii", "(6, 6, 3)", "lr_patch"]),
        ("hr", (8, 8, 8), {"lr_patch": (6, 4), "planes": "any"}, ["'source', 1.nii", "(8, 8, 8)", "lr_patch"]),
        ("hr", (8, 8, 1), {"lr_patch": (6, 4), "planes": "slices"}, ["'source', 1.nii", "(8, 8, 1)", "lr_patch"]),
    ):
        fits, options = noise(*needed), {"lr": [noise(9, 9, 9)], **options}
        loader_of(**options | {key: [fits]})
        for axis in range(3):
            small = fits.narrow(axis + 1, 0, needed[axis] - 1)
            both = options | {key: [fits, small]}
            refused(lambda both=both: loader_of(**both), ValueError, tuple(small.shape[1:]), *words)
