"""Slabs are drawn reproducibly, from tissue, and every pair of them is what the degradation makes of it."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from common.data import PairedSlabLoader, UnpairedSlabLoader, across_any_axis
from common.data.loaders import slabs
from common.degradations import (
    BandLimit,
    BlockAverage,
    ComposeDegradations,
    GaussianProfile,
    KSpaceTruncation,
    RicianNoise,
)
from common.networks import LinearDegradation
from tests.data.loaders.drawn import cache, check_draws, check_shares, choice, coin, first_voxel, noise, rng_of, take
from tests.refused import refused

FACTORS, LR_PATCH, HR_PATCH, MARGIN = (2, 2, 2), (5, 4, 3), (10, 8, 6), 4
OPTIONS = {"lr_patch": LR_PATCH, "factors": FACTORS, "batch_size": 4, "seed": 0, "device": "cpu"}
ORDERS = [(0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1)]
HR, FLAT_LR = noise(24, 22, 18), noise(14, 12, 4)


def plain(volume):
    return cache({"hr": volume, "hr_band": volume})


def source_of(*volumes):
    band = BandLimit(FACTORS)
    return cache(*[{"hr": v, "hr_band": band(v)} for v in volumes])


def unpaired(source=None, target=None, **changes):
    source = source or source_of(HR, noise(20, 18, 20, seed=1))
    target = target or cache({"lr": noise(14, 12, 9, seed=7)})
    return UnpairedSlabLoader(source, target, **OPTIONS | {"margin": MARGIN} | changes)


def paired(made_by=None, hr=HR, **changes):
    made_by = made_by or KSpaceTruncation(FACTORS)
    options = {key: value for key, value in OPTIONS.items() if key != "factors"} | {"degradation": made_by}
    return PairedSlabLoader(cache({"hr": hr, "lr": made_by(hr)}), **options | changes)


def place(start, size):
    return tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))


@pytest.mark.parametrize(("make", "world"), [(unpaired, 2), (paired, 4)])
def test_a_batch_is_a_function_of_seed_and_iteration_and_shared_by_processes(make, world, monkeypatch):
    for batch in check_draws(make, "hr", "lr"):
        assert batch["hr"].shape == (4, 1, *HR_PATCH) and batch["lr"].shape == (4, 1, *LR_PATCH)
    check_shares(make, monkeypatch, world)


@pytest.mark.parametrize("any_axis", [False, True])
def test_every_slab_is_what_its_draws_say(any_axis):
    """Of volumes that are half or all air: there the best of a few draws is taken."""
    # With its window all 1 a network makes of a context the k-space truncation of the mirrored, shifted volume.
    network = LinearDegradation(FACTORS, (0, 0, 0), radius=MARGIN, margin=MARGIN).requires_grad_(False)
    for decay in network.decays:
        decay.zero_()
    volumes = [noise(40, 36, 32), noise(20, 18, 20, seed=1)]
    volumes[0][:, :20] *= 0.01
    volumes[1] *= 0.0501
    source, target = source_of(*volumes), cache({"lr": noise(14, 12, 9, seed=7).clamp(max=0.06)})
    noises = {"noise_levels": [0.25, 1.0], **({"training_noise": [0.5]} if any_axis else {})}
    turned, loader = [], unpaired(source, target, any_axis=any_axis, **noises)
    orders = ORDERS if any_axis else ORDERS[:1]
    for iteration, batch in enumerate(take(loader, 6), start=1):
        made = network(batch["hr_context"])
        for n in range(4):
            rng = rng_of(0, iteration, n)
            item, order = choice(source.items, rng), choice(orders, rng)
            hr, band = item["hr"].permute(order), item["hr_band"].permute(order)
            start = first_voxel(hr, HR_PATCH, rng)
            around = F.pad(band[None], [MARGIN] * 6, mode="replicate")[0]
            slabs_of = {"hr": (hr, start, HR_PATCH), "hr_context": (around, start, [k + 2 * MARGIN for k in HR_PATCH])}
            lr = choice(target.items, rng)["lr"].permute(lr_order := choice(orders, rng))
            slabs_of["lr"] = lr, first_voxel(lr, LR_PATCH, rng), LR_PATCH
            mirrored = [axis for axis in (1, 2, 3) if coin(rng)]
            axes = {"hr": mirrored, "hr_context": mirrored, "lr": [a for a in (1, 2, 3) if coin(rng)]}
            for key, (volume, first, size) in slabs_of.items():
                assert torch.equal(batch[key][n], volume[(slice(None), *place(first, size))].flip(axes[key])), key
            ends = zip((1, 2, 3), start, HR_PATCH, hr.shape[1:], strict=True)
            first = [size - k - a if axis in mirrored else a for axis, a, k, size in ends]
            shifted = hr.flip(mirrored).roll([-a for a in first], dims=(1, 2, 3))
            expected = KSpaceTruncation(FACTORS)(shifted)[0][place((0, 0, 0), LR_PATCH)]
            torch.testing.assert_close(made[n, 0], expected, rtol=0, atol=1e-5)
            assert batch["turn"][n].tolist() == [axis - 1 for axis in order[1:]]
            assert batch["lr_turn"][n].tolist() == [axis - 1 for axis in lr_order[1:]]
            turned += [order, lr_order]
            level = choice([0.25, 1.0], rng)
            assert batch["noise"][n].std().item() == pytest.approx(level, rel=0.3)
            scaled = batch["noise"][n] * (0.5 / level if any_axis else 1)
            torch.testing.assert_close(batch["training_noise"][n], scaled, rtol=0.02, atol=0)
    assert len(set(turned)) == (3 if any_axis else 1)


@pytest.mark.parametrize("own", [0, 0.04])
def test_the_noise_of_a_slab_is_that_of_a_target_scan_less_the_sources_own(own):
    """Noise of 4 % on an HR grid is 1.41 % where it is sampled twice as coarsely within that band."""
    head = np.zeros((1, 64, 64, 48))
    head[:, 12:-12, 12:-12, 12:-12] = 0.6
    hr = RicianNoise(own, seed=0)(torch.from_numpy(gaussian_filter(head, 2, axes=(1, 2, 3))).float())
    loader = unpaired(source_of(hr), noise_levels=[0.0, 0.01, 0.03])
    found = torch.cat([batch["noise"].std(dim=(1, 2, 3, 4)) for batch in take(loader, 60)])
    added = (0.03**2 - own**2 / 8) ** 0.5
    levels = torch.tensor([0, 0 if own else 0.01, added])
    near = levels[(found[:, None] - levels).abs().argmin(dim=1)]
    torch.testing.assert_close(found, near, rtol=0.3, atol=1e-3)
    assert found[found > 0.015].mean().item() == pytest.approx(added, rel=0.03)
    shares = [2 / 3, 2 / 3, 1 / 3] if own else [1 / 3] * 3
    assert [(near == level).float().mean().item() for level in levels] == pytest.approx(shares, abs=0.08)


@pytest.mark.parametrize(("option", "ways"), [(None, 1), ("any_axis", 3), ("turned", 8), ("chance", 1)])
def test_every_pair_is_what_its_draws_say(option, ways):
    """HR and LR are of one place, and LR is what a degradation that centres voxels makes of HR."""
    degradation, size, found = BlockAverage(FACTORS), (5, 5, 3), set()
    lr, options = degradation(HR), {option: "true"} if option else {}
    for iteration, batch in enumerate(take(paired(degradation, lr_patch=size, **options), 10), start=1):
        torch.testing.assert_close(batch["lr"], degradation(batch["hr"]))
        for n in range(4):
            rng = rng_of(0, iteration, n)
            order = choice(ORDERS, rng) if option == "any_axis" else ORDERS[0]
            start = first_voxel(lr.permute(order), size, rng)
            mirrored, quarters = (rng.integers(2), int(rng.integers(4))) if option == "turned" else (0, 0)
            for key, volume, factor in (("hr", HR, 2), ("lr", lr, 1)):
                where = place([a * factor for a in start], [k * factor for k in size])
                slab = volume.permute(order)[(slice(None), *where)].flip([1] * mirrored)
                assert torch.equal(batch[key][n], slab.rot90(quarters, (1, 2)))
            assert batch["turn"][n].tolist() == [axis - 1 for axis in order[1:]]
            found.add((order, mirrored, quarters))
            if option == "chance":
                assert batch["chance"][n].tolist() == rng.random(1, dtype=np.float32).tolist()
    assert len(found) == ways and ("chance" in batch) == (option == "chance")


def test_only_volumes_that_hold_a_patch_and_options_in_their_range_are_accepted():
    assert take(unpaired(plain(noise(10, 8, 6))), 1)[0]["hr"].shape == (4, 1, *HR_PATCH)
    unpaired(target=cache({"lr": FLAT_LR}))
    for call, words in (
        (lambda: unpaired(noise_levels=[]), ["noise_levels", "[]"]),
        (lambda: unpaired(noise_levels=[-0.1]), ["noise_levels", "-0.1"]),
        (lambda: unpaired(any_axis=True, factors=(2, 2, 1)), ["any_axis", "(2, 2, 1)"]),
        (lambda: unpaired(factors=(2, 2, 1.5)), ["scale is (2, 2, 1.5)", "three whole numbers"]),
        (lambda: paired(KSpaceTruncation((2, 2, 1)), any_axis=True), ["any_axis", "(2, 2, 1)"]),
        (lambda: paired(BlockAverage(FACTORS), turned=True), ["lr_patch", "[5, 4, 3]"]),
        (lambda: paired(lr_patch=5), ["scale is [2, 2, 2]", "[n, n, 1]"]),
        (lambda: unpaired(plain(noise(10, 8, 5))), ["'source'", "0.nii", "(10, 8, 5)", "(10, 8, 6)", "lr_patch"]),
        (lambda: unpaired(target=cache({"lr": HR}, {"lr": noise(5, 3, 9)})), ["'target'", "1.nii", "(5, 3, 9)"]),
        (lambda: unpaired(target=cache({"lr": FLAT_LR}), any_axis=True), ["'target'", "(14, 12, 4)", "(5, 4, 3)"]),
        (lambda: paired(hr=noise(8, 8, 6)), ["(4, 4, 3)", "(5, 4, 3)"]),
        (
            lambda: paired(KSpaceTruncation((2, 2, 1)), degradation=KSpaceTruncation(FACTORS)),
            ["(24, 22, 18)", "(12, 11, 18)", "[2, 2, 2]"],
        ),
    ):
        refused(call, ValueError, *words)


def test_volumes_that_cannot_be_prepared_are_all_listed():
    error, volume = RuntimeError("applying transform <Fussy>"), {"hr": torch.ones(1, 2, 2, 2)}
    error.__cause__ = ValueError("3 voxels are NaN\nand more")
    fussy, words = Mock(side_effect=[error, volume, error]), ["0.nii: 3 voxels are NaN", "2.nii: 3 voxels are NaN"]
    assert "1.nii" not in refused(lambda: cache(*[volume] * 3, transform=fussy).items, ValueError, *words)
    kept = cache({"hr": torch.ones(1, 2, 2, 2, dtype=torch.int16), "lr": 5}, keys=["hr"])
    assert len(kept) == 1 and kept[0].keys() == {"hr"} and kept[0]["hr"].dtype == torch.float32


@pytest.mark.parametrize(
    ("degradation", "turned"),
    [
        (GaussianProfile((2, 2, 1)), True),
        (KSpaceTruncation((2, 2, 1)), False),
        (ComposeDegradations([GaussianProfile((2, 2, 1)), RicianNoise(0.05, seed=1)]), False),
    ],
)
def test_pairs_are_turned_where_that_is_right(degradation, turned):
    assert paired(degradation, lr_patch=5, turned="true").turned is turned
    assert paired(degradation, lr_patch=5).turned is False


def test_noise_is_measured_where_none_is_given(monkeypatch):
    monkeypatch.setattr(slabs, "measure_noise", lambda items: [0.1 * len(items)])
    assert unpaired().noise_levels == unpaired().training_noise == [0.1]
    assert unpaired(noise_levels=[0.2], training_noise=[0.0]).noise_levels == [0.2]


def test_slabs_are_cut_across_any_axis_where_the_axes_are_alike():
    alike = [True, "true", True]
    for any_axis, factors, encoded, expected in (
        (None, FACTORS, alike, True),
        ("False", FACTORS, alike, False),
        (None, FACTORS, [True, True, False], False),
        (None, (2, 2, 1), alike, False),
        (True, FACTORS, ["false"] * 3, True),
    ):
        assert across_any_axis(any_axis, factors, encoded) is expected
    refused(lambda: across_any_axis(True, FACTORS, [True, True, False]), ValueError, "not encoded alike")
