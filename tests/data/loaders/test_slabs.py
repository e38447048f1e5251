"""Slabs are drawn reproducibly, from tissue, and every pair of them is what the degradation makes of it."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from common.data import PairedSlabLoader, UnpairedSlabLoader, VolumeCache
from common.data.loaders import slabs
from common.degradations import BandLimit, BlockAverage, KSpaceTruncation, RicianNoise
from common.networks import LinearDegradation
from tests.data.loaders import by_definition

FACTORS, LR_PATCH, HR_PATCH, MARGIN = (2, 2, 2), (5, 4, 3), (10, 8, 6), 4
FLIPS = [axes for n in range(4) for axes in itertools.combinations((1, 2, 3), n)]


def noise(*shape, seed=0):
    """A volume (1, X, Y, Z) whose voxels all differ, so that a patch shows where it is from."""
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def cache(*volumes, transform=None, keys=None):
    """A cache of the given dictionaries of tensors."""
    keys = list(volumes[0]) if keys is None else keys
    data = [{"hr": f"{i}.nii", "i": i} for i in range(len(volumes))]
    return VolumeCache(
        data, Compose([lambda entry: dict(volumes[entry["i"]]), *([transform] if transform else [])]), keys
    )


def source_of(*volumes):
    band = BandLimit(FACTORS)
    return cache(*[{"hr": v, "hr_band": band(v)} for v in volumes])


def plain(volume):
    return cache({"hr": volume, "hr_band": volume})


def unpaired(source=None, target=None, **changes):
    options = {"lr_patch": LR_PATCH, "factors": FACTORS, "margin": MARGIN, "batch_size": 4, "seed": 0, "device": "cpu"}
    source = source or source_of(noise(24, 22, 18), noise(20, 18, 20, seed=1))
    return UnpairedSlabLoader(source, target or cache({"lr": noise(14, 12, 9, seed=7)}), **options | changes)


def paired(degradation, hr, **changes):
    options = {"lr_patch": LR_PATCH, "factors": FACTORS, "batch_size": 4, "seed": 0, "device": "cpu"}
    return PairedSlabLoader(cache({"hr": hr, "lr": degradation(hr)}), **options | changes)


def take(loader, n):
    return [batch for _, batch in zip(range(n), loader, strict=False)]


def origin(patch, volumes):
    """Which volume, mirrored along which axes, has the patch, and from which voxel on."""
    shape = patch.shape[1:]
    for (i, volume), axes in itertools.product(enumerate(volumes), FLIPS):
        mirrored = volume.flip(axes)
        for start in (mirrored[0] == patch[0, 0, 0, 0]).nonzero().tolist():
            found = mirrored[0][tuple(slice(s, s + k) for s, k in zip(start, shape, strict=True))]
            if found.shape == shape and torch.equal(found, patch[0]):
                return i, axes, start
    raise AssertionError("the patch is from no volume")


LOADERS = {
    "unpaired": unpaired,
    "paired": lambda **changes: paired(KSpaceTruncation(FACTORS), noise(24, 22, 18), **changes),
}
every_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@every_loader
def test_a_batch_is_a_function_of_the_seed_and_the_iteration(make):
    batches = take(make(), 5)
    for batch in batches:
        assert batch["hr"].shape == (4, 1, *HR_PATCH) and batch["lr"].shape == (4, 1, *LR_PATCH)
    torch.manual_seed(3)
    np.random.seed(3)
    again = make()
    again.set_iteration(3)
    assert_same(take(again, 2), batches[3:])
    # also where an iterator is already under way, as the trainer's is
    iterator = iter(again)
    next(iterator)
    again.set_iteration(1)
    assert_same([next(iterator)], batches[1:2])
    different = [*batches, *take(make(seed=1), 5)]
    assert all(not torch.equal(a["lr"], b["lr"]) for a, b in itertools.combinations(different, 2))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(batches[0]["hr"], 2))


@every_loader
@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_processes_make_up_the_batch_of_one(make, world, monkeypatch):
    whole = take(make(), 3)
    shares = []
    for rank in range(world):
        with monkeypatch.context() as patch:
            patch.setattr(slabs.dist, "is_initialized", lambda: True)
            patch.setattr(slabs.dist, "get_world_size", lambda: world)
            patch.setattr(slabs.dist, "get_rank", lambda rank=rank: rank)
            loader = make()
            if world == 4:
                with pytest.raises(ValueError, match="batch_size 6 does not divide among 4"):
                    make(batch_size=6)
        shares.append(take(loader, 3))
    joined = [{k: torch.cat([share[i][k] for share in shares]) for k in whole[i]} for i in range(3)]
    assert_same(joined, whole)


@pytest.mark.parametrize("offset", [(0, 0, 0), (0.5, 0.5, 0.5)], ids=str)
def test_a_mirrored_slab_degrades_as_the_mirrored_volume_does(offset):
    """Flip, then degrade: what a learnt degradation makes of a context is its output for the whole flipped volume."""
    source = source_of(noise(24, 22, 18), noise(20, 18, 20, seed=1))
    network = LinearDegradation(FACTORS, offset, radius=MARGIN, margin=MARGIN)
    for decay in network.decays:
        decay.data = torch.rand(decay.shape, generator=torch.Generator().manual_seed(1))
    seen = set()
    for batch in take(unpaired(source), 6):
        lr = network(batch["hr_context"]).detach()
        for hr, context, low in zip(batch["hr"], batch["hr_context"], lr, strict=True):
            i, axes, start = origin(hr, [item["hr"] for item in source.items])
            seen.add((i, axes))
            expected = source[i]["hr_band"].flip(axes)[0].numpy().astype(np.float64)
            inside = tuple(slice(MARGIN, -MARGIN) for _ in range(3))
            band = source[i]["hr_band"].flip(axes)[0]
            place = tuple(slice(s, s + k) for s, k in zip(start, HR_PATCH, strict=True))
            assert torch.equal(context[0][inside], band[place])
            for axis, kernel in enumerate(network.kernels()):
                first = network.starts[axis] - MARGIN
                taps = start[axis] + first + 2 * np.arange(LR_PATCH[axis])[:, None] + np.arange(len(kernel))
                values = expected.take(taps, axis=axis, mode="clip")  # beyond the volume its outermost voxels
                expected = np.tensordot(values, kernel.detach().double().numpy(), axes=(axis + 1, 0))
            assert np.allclose(low[0].numpy(), expected, atol=1e-5)
    assert len(seen) > 10 and {axes for _, axes in seen} == set(FLIPS)


def test_every_pair_that_is_augmented_satisfies_the_degradation():
    """With its window all 1, what is made of a context is the k-space truncation of the mirrored, shifted volume."""
    volume = noise(24, 22, 18)
    network = LinearDegradation(FACTORS, (0, 0, 0), radius=MARGIN, margin=MARGIN)
    for decay in network.decays:
        decay.data.zero_()
    truncation = KSpaceTruncation(FACTORS)
    for batch in take(unpaired(source_of(volume)), 4):
        lr = network(batch["hr_context"]).detach()
        for hr, low in zip(batch["hr"], lr, strict=True):
            _, axes, start = origin(hr, [volume])
            shifted = volume.flip(axes).roll([-s for s in start], dims=(1, 2, 3))
            expected = truncation(shifted)[0, : LR_PATCH[0], : LR_PATCH[1], : LR_PATCH[2]]
            assert torch.allclose(low[0], expected, atol=1e-5)


def test_both_groups_are_mirrored_and_nothing_pairs_them():
    lr_volume, hr_volume = noise(14, 12, 9, seed=7), noise(24, 22, 18)
    together = []
    for batch in take(unpaired(source_of(hr_volume), cache({"lr": lr_volume})), 30):
        for hr, lr in zip(batch["hr"], batch["lr"], strict=True):
            (_, a, p), (_, b, q) = origin(hr, [hr_volume]), origin(lr, [lr_volume])
            together.append((a, b, p[0] / 14, q[0] / 9))
    flips = [(a, b) for a, b, *_ in together]
    assert {a for a, _ in flips} == {b for _, b in flips} == set(FLIPS)
    assert len(set(flips)) > 40  # of 64
    assert abs(np.corrcoef([t[2:] for t in together], rowvar=False)[0, 1]) < 0.3


@every_loader
def test_any_axis_may_run_across_the_slabs(make):
    """Each third of the slabs is cut across another axis, and a pair or a context is what the turned volume gives."""
    volumes = noise(24, 22, 18), noise(20, 18, 20, seed=1)
    orders = [(0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1)]
    network = LinearDegradation(FACTORS, (0, 0, 0), radius=MARGIN, margin=MARGIN)
    found = []
    loader = unpaired(source_of(*volumes), any_axis=True) if make is unpaired else make(any_axis=True)
    for batch in take(loader, 12):
        for i, hr in enumerate(batch["hr"]):
            for order in orders:
                turned = [v.permute(order) for v in volumes]
                with contextlib.suppress(AssertionError):
                    v, mirrored, start = origin(hr, turned)
                    found.append(order)
                    said = batch["turn"][i].tolist()
                    whole = turned[v].flip(mirrored)
            assert said == [axis - 1 for axis in found[-1][1:]]
            if make is unpaired:
                whole = BandLimit(FACTORS)(whole)
                size = [k + 2 * MARGIN for k in HR_PATCH]
                context = slabs.cut_with_margin(whole, start, HR_PATCH, MARGIN)
                assert list(context.shape[1:]) == size
                torch.testing.assert_close(batch["hr_context"][i], context, atol=1e-5, rtol=0)
                assert network(context[None]).shape[2:] == LR_PATCH
            else:
                lr = KSpaceTruncation(FACTORS)(whole)
                place = tuple(slice(s // 2, s // 2 + k) for s, k in zip(start, LR_PATCH, strict=True))
                torch.testing.assert_close(batch["lr"][i], lr[(slice(None), *place)], atol=1e-5, rtol=0)
    assert len(found) == 48 and min(found.count(order) for order in orders) > 8


def test_any_axis_needs_the_same_factor_everywhere():
    for make in (unpaired, lambda **changes: paired(KSpaceTruncation((2, 2, 1)), noise(24, 22, 18), **changes)):
        with pytest.raises(ValueError, match=r"any_axis needs the same factor .* got factors \(2, 2, 1\)"):
            make(any_axis=True, factors=(2, 2, 1))
    # A volume that holds a slab across its last axis only is too small.
    flat = cache({"lr": noise(14, 12, 4, seed=7)})
    unpaired(target=flat)
    with pytest.raises(ValueError, match="fewer than the patch"):
        unpaired(target=flat, any_axis=True)


def test_every_place_of_a_volume_may_be_drawn():
    volume = noise(14, 10, 8)
    loader = paired(BlockAverage(FACTORS), volume)
    starts = {tuple(origin(hr, [volume])[2]) for batch in take(loader, 20) for hr in batch["hr"]}
    assert starts == set(itertools.product((0, 2, 4), (0, 2), (0, 2)))


@pytest.mark.parametrize("any_axis", [False, True])
def test_every_slab_is_what_its_draws_say(any_axis):
    """Of volumes half of which is air, and of one that is nothing else: there the best of a few draws is taken."""
    volumes = [noise(40, 36, 32), noise(20, 18, 20, seed=1)]
    volumes[0][:, :20] *= 0.01
    volumes[1] *= 0.0501
    source, target = source_of(*volumes), cache({"lr": noise(14, 12, 9, seed=7).clamp(max=0.06)})
    noises = {"noise_levels": [0.25, 1.0], **({"training_noise": [0.5]} if any_axis else {})}
    turned, loader = [], unpaired(source, target, any_axis=any_axis, **noises)
    for iteration, batch in enumerate(take(loader, 6), start=1):
        for n in range(4):
            rng = by_definition.generator(0, iteration, n)

            def turn(rng=rng):
                turned.append(by_definition.choice([(0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1)], rng) if any_axis else ())
                return turned[-1] or (0, 1, 2, 3)

            item, order = by_definition.choice(source.items, rng), turn()
            hr, band = item["hr"].permute(order), item["hr_band"].permute(order)
            start = by_definition.start(hr, HR_PATCH, rng)
            around = F.pad(band[None], [MARGIN] * 6, mode="replicate")[0]
            slabs_of = {"hr": (hr, start, HR_PATCH), "hr_context": (around, start, [k + 2 * MARGIN for k in HR_PATCH])}
            lr = by_definition.choice(target.items, rng)["lr"].permute(turn())
            slabs_of["lr"] = lr, by_definition.start(lr, LR_PATCH, rng), LR_PATCH
            mirrored = [axis for axis in (1, 2, 3) if by_definition.coin(rng)]
            axes = {"hr": mirrored, "hr_context": mirrored, "lr": [a for a in (1, 2, 3) if by_definition.coin(rng)]}
            for key, (volume, first, size) in slabs_of.items():
                place = tuple(slice(a, a + k) for a, k in zip(first, size, strict=True))
                assert torch.equal(batch[key][n], volume[(slice(None), *place)].flip(axes[key])), key
            for key, order in zip(("turn", "lr_turn"), turned[-2:], strict=True):
                assert batch[key][n].tolist() == [axis - 1 for axis in (order or (0, 1, 2, 3))[1:]]
            level = by_definition.choice([0.25, 1.0], rng)
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
    source = cache({"hr": hr, "hr_band": BandLimit((2, 2, 2))(hr)})
    loader = unpaired(source, factors=(2, 2, 2), noise_levels=[0.0, 0.01, 0.03])
    found = torch.cat([batch["noise"].std(dim=(1, 2, 3, 4)) for batch in take(loader, 60)])
    added = (0.03**2 - own**2 / 8) ** 0.5
    levels = torch.tensor([0, 0 if own else 0.01, added])
    near = levels[(found[:, None] - levels).abs().argmin(dim=1)]
    torch.testing.assert_close(found, near, rtol=0.3, atol=1e-3)
    assert found[found > 0.015].mean().item() == pytest.approx(added, rel=0.03)
    assert [(near == level).float().mean().item() for level in levels] == pytest.approx(
        [2 / 3, 2 / 3, 1 / 3] if own else [1 / 3] * 3, abs=0.08
    )


def test_a_level_below_zero_is_refused():
    for wrong in ([], [-0.1]):
        with pytest.raises(ValueError, match="expected a list of numbers of at least 0"):
            unpaired(noise_levels=wrong)


def test_paired_slabs_are_at_the_same_place():
    hr = noise(22, 18, 14)
    for batch in take(paired(BlockAverage(FACTORS), hr), 5):
        assert torch.allclose(BlockAverage(FACTORS)(batch["hr"]), batch["lr"], atol=1e-6)
    # LR voxel i lies on HR voxel s i: of a volume within the band of LR it is that voxel.
    band = BandLimit(FACTORS)(hr)
    lr_volume = KSpaceTruncation(FACTORS)(band)
    for batch in take(paired(KSpaceTruncation(FACTORS), band), 5):
        for hr_patch, lr_patch in zip(batch["hr"], batch["lr"], strict=True):
            assert torch.allclose(hr_patch[:, ::2, ::2, ::2], lr_patch, atol=1e-5)
            (_, mirrored, start), (_, not_either, lr_start) = origin(hr_patch, [band]), origin(lr_patch, [lr_volume])
            assert mirrored == not_either == () and start == [2 * s for s in lr_start]


def test_pairs_are_mirrored_and_turned_together():
    """In all eight ways, and LR stays what the degradation makes of HR where it is centred."""
    degradation = BlockAverage((2, 2, 1))
    hr = noise(24, 22, 5)
    options = {"lr_patch": (5, 5, 1), "factors": (2, 2, 1), "turned": True}
    slabs = [slab for batch in take(paired(degradation, hr, **options), 40) for slab in batch["hr"]]
    for batch in take(paired(degradation, hr, **options), 10):
        torch.testing.assert_close(batch["lr"], degradation(batch["hr"]))
    found = set()
    for slab, mirrored, quarters in itertools.product(slabs, (False, True), range(4)):
        back = slab.rot90(-quarters, (1, 2))
        back = back.flip(1) if mirrored else back
        start = (hr[0] == back[0, 0, 0, 0]).nonzero()
        at = [int(s) for s in start[0]]
        if torch.equal(hr[0, at[0] : at[0] + 10, at[1] : at[1] + 10, at[2] : at[2] + 1], back[0]):
            found.add((mirrored, quarters))
    assert len(found) == 8
    with pytest.raises(ValueError, match=r"lr_patch is \[5, 4, 1\].*make them equal"):
        paired(degradation, hr, lr_patch=(5, 4, 1), factors=(2, 2, 1), turned=True)
    # As the command line gives it.
    assert_same(*(take(paired(degradation, hr, **{**options, "turned": off}), 3) for off in (False, "false")))


def test_chance_is_drawn_for_each_pair():
    """And changes nothing else of the pairs."""
    with_chance, without = (take(paired(BlockAverage(FACTORS), noise(22, 18, 14), chance=c), 40) for c in (True, False))
    drawn = torch.cat([batch.pop("chance") for batch in with_chance])
    assert drawn.shape == (160, 1) and len(drawn.unique()) == 160
    assert 0 <= drawn.min() < 0.05 and 0.95 < drawn.max() < 1
    assert all(torch.equal(a[key], b[key]) for a, b in zip(with_chance, without, strict=True) for key in a)


def test_volumes_that_do_not_fit_are_named():
    small = cache({"hr": noise(10, 8, 5), "hr_band": noise(10, 8, 5)})
    with pytest.raises(
        ValueError, match=r"group 'source', 0\.nii: .*\(10, 8, 5\) voxels, fewer .*\(10, 8, 6\).*lr_patch"
    ):
        unpaired(small)
    with pytest.raises(ValueError, match=r"group 'target'.*\(5, 3, 9\) voxels, fewer than the patch \(5, 4, 3\)"):
        unpaired(target=cache({"lr": noise(14, 12, 9)}, {"lr": noise(5, 3, 9)}))
    with pytest.raises(
        ValueError, match=r"HR has \(24, 22, 18\) voxels and LR \(12, 11, 18\); factors are \(2, 2, 2\)"
    ):
        paired(KSpaceTruncation((2, 2, 1)), noise(24, 22, 18))
    with pytest.raises(ValueError, match=r"\(4, 4, 3\) voxels, fewer than the patch"):
        paired(KSpaceTruncation(FACTORS), noise(8, 8, 6))
    fits = cache({"hr": noise(10, 8, 6), "hr_band": noise(10, 8, 6)})
    assert take(unpaired(fits), 1)[0]["hr"].shape == (4, 1, *HR_PATCH)


def test_volumes_that_cannot_be_prepared_are_all_listed():
    def fussy(item):
        if item["hr"].max() > 0.99:
            try:
                raise ValueError("3 voxels are NaN\nand more")
            except ValueError as cause:
                raise RuntimeError("applying transform <Fussy>") from cause
        return item

    volumes = [{"hr": torch.full((1, 2, 2, 2), v)} for v in (1.0, 0.5, 1.0)]
    with pytest.raises(ValueError) as error:
        cache(*volumes, transform=fussy)
    assert str(error.value).count(": 3 voxels are NaN") == 2
    assert "0.nii" in str(error.value) and "1.nii" not in str(error.value) and "2.nii" in str(error.value)
    kept = cache({"hr": torch.ones(1, 2, 2, 2, dtype=torch.int16), "lr": 5}, keys=["hr"])
    assert len(kept) == 1 and kept[0].keys() == {"hr"} and kept[0]["hr"].dtype == torch.float32
