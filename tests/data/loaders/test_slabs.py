"""Slabs are drawn reproducibly, from tissue, and every pair of them is what the degradation makes of it."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from common.data import PairedSlabLoader, UnpairedSlabLoader, are_axes_alike
from common.data.loaders import slabs
from common.degradations import BandLimit, ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
from common.networks import LinearDegradation
from tests.data.loaders.drawn import cache, check_draws, check_shares, half_air, noise, origin, take
from tests.refused import refused

FACTORS, LR_PATCH, HR_PATCH, MARGIN = (2, 2, 2), (5, 4, 3), (10, 8, 6), 4
OPTIONS = {"lr_patch": LR_PATCH, "factors": FACTORS, "batch_size": 4, "seed": 0, "device": "cpu"}
ORDERS = {(0, 1, 2), (0, 2, 1), (1, 2, 0)}
IN_PLANE = KSpaceTruncation((2, 2, 1))
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
def test_slabs_are_cut_turned_and_mirrored_with_their_context_and_noise(any_axis):
    """Of volumes that are half or all air: there the best of a few draws is taken."""
    # With its window all 1 a network makes of a context the k-space truncation of the mirrored, shifted volume.
    network = LinearDegradation(FACTORS, (0, 0, 0), radius=MARGIN, margin=MARGIN).requires_grad_(False)
    for decay in network.decays:
        decay.zero_()
    volumes = [half_air(40, 36, 32), 0.0501 * noise(20, 18, 20, seed=1)]
    source, lr = source_of(*volumes), 0.06 * noise(14, 12, 9, seed=7)
    noises = {"noise_levels": [0.25, 1.0], **({"training_noise": [0.5]} if any_axis else {})}
    orders, flips, levels, tissue = set(), set(), [], {0: [], 1: []}
    for batch in take(unpaired(source, cache({"lr": lr}), any_axis=any_axis, **noises), 12):
        made = network(batch["hr_context"])
        for n in range(4):
            which, order, mirrored, start = origin(batch["hr"][n, 0], [volume[0] for volume in volumes])
            hr, band = (source.volumes[which][key][0].permute(order) for key in ("hr", "hr_band"))
            around = F.pad(band[None, None], [MARGIN] * 6, mode="replicate")[0, 0]
            context = around[place(start, [k + 2 * MARGIN for k in HR_PATCH])]
            assert torch.equal(batch["hr_context"][n, 0], context.flip(mirrored))
            ends = zip(range(3), start, HR_PATCH, hr.shape, strict=True)
            first = [size - k - a if axis in mirrored else a for axis, a, k, size in ends]
            shifted = hr.flip(mirrored).roll([-a for a in first], dims=(0, 1, 2))
            expected = KSpaceTruncation(FACTORS)(shifted[None])[0][place((0, 0, 0), LR_PATCH)]
            torch.testing.assert_close(made[n, 0], expected, rtol=0, atol=1e-5)
            _, lr_order, lr_mirrored, _ = origin(batch["lr"][n, 0], [lr[0]])
            assert tuple(batch["slab_orientation"][n].tolist()) == order
            assert tuple(batch["lr_slab_orientation"][n].tolist()) == lr_order
            orders |= {order, lr_order}
            flips |= {("hr", mirrored), ("lr", lr_mirrored)}
            tissue[which].append((batch["hr"][n] > 0.05).float().mean().item())
            levels.append(0.25 if batch["noise"][n].std() < 0.5 else 1.0)
            assert batch["noise"][n].std().item() == pytest.approx(levels[-1], rel=0.3)
            scaled = batch["noise"][n] * (0.5 / levels[-1] if any_axis else 1)
            torch.testing.assert_close(batch["training_noise"][n], scaled, rtol=0.02, atol=0)
    assert orders == (ORDERS if any_axis else {(0, 1, 2)}) and len(flips) > 12 and 12 < levels.count(1.0) < 36
    # A tenth of the slabs of the first would have no tissue, and 0.2 % of the voxels of the second are some.
    assert min(tissue[0]) > 0.2 and np.mean(tissue[1]) > 0.004 and min(map(len, tissue.values())) > 12


def test_slabs_begin_wherever_they_fit():
    hr, lr = (noise(*(n + 1 for n in size), seed=1) for size in (HR_PATCH, LR_PATCH))
    batches = take(unpaired(plain(hr), cache({"lr": lr})), 20)
    for key, volume in (("hr", hr), ("lr", lr)):
        starts = [origin(slab[0], [volume[0]])[3] for batch in batches for slab in batch[key]]
        assert {*starts} == {*np.ndindex(2, 2, 2)}


@pytest.mark.parametrize("uniform", [True, False])
def test_slabs_are_drawn_uniformly_and_as_they_are_where_that_is_asked_for(uniform):
    """Of 15 places 5 show no tissue to speak of."""
    hr, lr = half_air(24, 8, 6), half_air(19, 4, 3, seed=1)
    options = {"avoid_air": False, "mirror": False} if uniform else {}
    found = {"hr": [], "lr": [], "pair": []}
    for batch in take(unpaired(plain(hr), cache({"lr": lr}), margin=None, **options), 75):
        for key, volume in (("hr", hr), ("lr", lr)):
            found[key] += [origin(slab[0], [volume[0]])[2:] for slab in batch[key]]
    options.pop("mirror", None)
    pair = {"lr": half_air(19, 6, 5), "hr": torch.zeros(1, 38, 12, 10)}
    for batch in take(PairedSlabLoader(cache(pair), (5, 6, 5), KSpaceTruncation(FACTORS), 4, 0, "cpu", **options), 75):
        found["pair"] += [origin(slab[0], [pair["lr"][0]])[2:] for slab in batch["lr"]]
    for key, draws in found.items():
        counts = np.bincount([start[0] for _, start in draws], minlength=15)
        assert {mirrored for mirrored, _ in draws} == {()} if uniform or key == "pair" else {0, 1, 2}
        assert (counts.min() > 8 and counts.max() < 36) if uniform else counts[:4].sum() == 0, key


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


class Blocks(GaussianProfile):
    """Averages within each LR voxel, so that no patch depends on what lies around it."""

    def _degrade(self, hr):
        return torch.nn.functional.avg_pool3d(hr, self.factors)


@pytest.mark.parametrize(("option", "ways"), [(None, 1), ("any_axis", 3), ("augment", 8), ("random_numbers", 1)])
def test_pairs_are_of_one_place(option, ways):
    """LR is what a degradation that centres voxels makes of HR, however it is turned."""
    degradation, size, found, starts = Blocks(FACTORS), (5, 5, 3), set(), set()
    options = {option: True} if option else {}
    for batch in take(paired(degradation, lr_patch=size, **options), 25):
        torch.testing.assert_close(batch["lr"], degradation(batch["hr"]))
        for n in range(4):
            _, order, mirrored, start = origin(batch["hr"][n, 0], [HR[0]])
            assert not any(first % 2 for first in start)
            found.add((order, mirrored))
            starts.add(start)
            if option != "augment":
                assert tuple(batch["slab_orientation"][n].tolist()) == order
        assert ("random_numbers" in batch) == (option == "random_numbers")
        if option == "random_numbers":
            drawn = batch["random_numbers"]
            assert drawn.unique().numel() == 4 and 0 <= drawn.min() <= drawn.max() < 1
    assert len(found) == ways and len(starts) > 50


def test_only_volumes_that_hold_a_patch_and_options_in_their_range_are_accepted():
    assert take(unpaired(plain(noise(10, 8, 6))), 1)[0]["hr"].shape == (4, 1, *HR_PATCH)
    unpaired(target=cache({"lr": FLAT_LR}))
    for call, words in (
        (lambda: unpaired(noise_levels=[]), ["noise_levels", "[]"]),
        (lambda: unpaired(noise_levels=[-0.1]), ["noise_levels", "-0.1"]),
        (lambda: unpaired(any_axis=True, factors=(2, 2, 1)), ["any_axis", "(2, 2, 1)"]),
        (lambda: unpaired(factors=(2, 2, 1.5)), ["scale is (2, 2, 1.5)"]),
        (lambda: paired(KSpaceTruncation((2, 2, 1)), any_axis=True), ["any_axis", "(2, 2, 1)"]),
        (lambda: paired(GaussianProfile(FACTORS), augment=True), ["lr_patch", "[5, 4, 3]"]),
        (lambda: paired(lr_patch=5), ["scale is [2, 2, 2]", "[n, n, 1]"]),
        (lambda: unpaired(plain(noise(10, 8, 5))), ["'source'", "0.nii", "(10, 8, 5)", "(10, 8, 6)", "lr_patch"]),
        (lambda: unpaired(target=cache({"lr": HR}, {"lr": noise(5, 3, 9)})), ["'target'", "1.nii", "(5, 3, 9)"]),
        (lambda: unpaired(target=cache({"lr": FLAT_LR}), any_axis=True), ["'target'", "(14, 12, 4)", "(5, 4, 3)"]),
        (lambda: paired(hr=noise(8, 8, 6)), ["(4, 4, 3)", "(5, 4, 3)"]),
        (lambda: paired(IN_PLANE, degradation=KSpaceTruncation(FACTORS)), ["(24, 22, 18)", "(12, 11, 18)", FACTORS]),
    ):
        refused(call, ValueError, *words)


def test_volumes_that_cannot_be_prepared_are_all_listed():
    error, volume = RuntimeError("applying transform <Fussy>"), {"hr": torch.ones(1, 2, 2, 2)}
    error.__cause__ = ValueError("3 voxels are NaN\nand more")
    fussy, words = Mock(side_effect=[error, volume, error]), ["0.nii: 3 voxels are NaN", "2.nii: 3 voxels are NaN"]
    assert "1.nii" not in refused(lambda: cache(*[volume] * 3, transform=fussy).volumes, ValueError, *words)
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
    assert paired(degradation, lr_patch=5, augment=True).augment is turned
    assert paired(degradation, lr_patch=5).augment is False


def test_noise_is_measured_where_none_is_given(monkeypatch):
    monkeypatch.setattr(slabs, "estimate_noise_levels", lambda items: [0.1 * len(items)])
    assert unpaired().noise_levels == unpaired().training_noise == [0.1]
    assert unpaired(noise_levels=[0.2], training_noise=[0.0]).noise_levels == [0.2]


def test_axes_are_alike_by_their_factors_and_encoding():
    for factors, encoded, expected in (
        (FACTORS, [True, True, True], True),
        (FACTORS, [True, True, False], False),
        ((2, 2, 1), [True, True, True], False),
    ):
        assert are_axes_alike(factors, encoded) is expected
    options = {"any_axis": True, "fourier_encoded": [True, True, False]}
    refused(lambda: unpaired(**options), ValueError, "not encoded alike")
