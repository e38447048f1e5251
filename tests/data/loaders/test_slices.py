"""Patches of slices: where they come from, how they are turned and rescaled, and that the guide goes with them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.data import KernelSliceLoader, SliceLoader, VolumeCache
from common.data.loaders import slabs
from common.degradations import GaussianProfile, InPlaneKernel
from common.networks import KernelSampling
from tests.data.loaders import by_definition

PATCH, MARGIN = 8, 5
QUARTERS = [0, 90, 180, 270]


def noise(*shape, seed=0):
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def cache(*volumes):
    data = [{"hr": f"{i}.nii", "i": i} for i in range(len(volumes))]
    return VolumeCache(data, lambda entry: volumes[entry["i"]], list(volumes[0]))


def loader_of(*volumes, **changes):
    volumes = volumes or [{"hr": noise(20, 18, 3, seed=i), "guide": noise(20, 18, 3, seed=i + 5)} for i in range(2)]
    options = {"patch": PATCH, "margin": MARGIN, "angles": range(0, 360, 15), "scales": [1.0, 0.7, 0.5]}
    options |= {"guide_shift": 0.0, "batch_size": 4, "seed": 0, "device": "cpu"}
    return SliceLoader(cache(*volumes), **options | changes)


def take(loader, n):
    return [batch for _, batch in zip(range(n), loader, strict=False)]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_a_batch_is_a_function_of_the_seed_and_the_iteration():
    batches = take(loader_of(), 5)
    for batch in batches:
        outer = PATCH + 2 * MARGIN
        sizes = {"hr": (4, 1, PATCH, PATCH, 1), "hr_context": (4, 1, outer, outer, 1), "guide": (4, 1, PATCH, PATCH, 1)}
        assert {key: tuple(value.shape) for key, value in batch.items()} == sizes
        inner = slice(MARGIN, MARGIN + PATCH)
        assert torch.equal(batch["hr"], batch["hr_context"][:, :, inner, inner])
    torch.manual_seed(3)
    again = loader_of()
    again.set_iteration(3)
    assert_same(take(again, 2), batches[3:])
    different = [*batches, *take(loader_of(seed=1), 5)]
    assert all(not torch.equal(a["hr"], b["hr"]) for a, b in itertools.combinations(different, 2))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(batches[0]["hr"], 2))


def test_the_shares_of_processes_make_up_the_batch_of_one(monkeypatch):
    whole, shares = take(loader_of(), 3), []
    monkeypatch.setattr(slabs.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(slabs.dist, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(slabs.dist, "get_rank", lambda rank=rank: rank)
        shares.append(take(loader_of(), 3))
    assert_same([{k: torch.cat([a[k], b[k]]) for k in a} for a, b in zip(*shares, strict=True)], whole)
    with pytest.raises(ValueError, match="batch_size 5 does not divide among 2"):
        loader_of(batch_size=5)


def poses(plane):
    """A plane in all its poses by quarter turns and, after them, a flip of the rows."""
    turned = [((turns, flipped), torch.rot90(plane, turns)) for flipped in (False, True) for turns in range(4)]
    return [((turns, flipped), p.flip(0) if flipped else p) for (turns, flipped), p in turned]


def origin(patch, planes):
    """Of which plane, in which pose and from which pixel on, the patch is a cut-out."""
    edge = len(patch)
    for name, plane in planes:
        windows = plane.unfold(0, edge, 1).unfold(1, edge, 1)
        close = ((windows - patch).abs().amax(dim=(2, 3)) < 1e-3).nonzero().tolist()
        if close:
            return name, close[0]
    raise AssertionError("the patch is no cut-out of any plane")


@pytest.mark.parametrize("patch", [8, 7])
@pytest.mark.parametrize("angle", QUARTERS)
def test_quarter_turns_are_exact_cut_outs_with_what_is_around_them(angle, patch):
    hr, guide = noise(20, 17, 3), noise(20, 17, 3, seed=1)
    planes = [((z, pose), p) for z in range(3) for pose, p in poses(hr[0, ..., z])]
    found = set()
    for batch in take(loader_of({"hr": hr, "guide": guide}, patch=patch, angles=[angle], scales=[1.0]), 6):
        for i in range(4):
            (z, pose), (x, y) = origin(batch["hr"][i, 0, ..., 0], planes)
            for key, volume, margin in (("hr_context", hr, MARGIN), ("guide", guide, 0)):
                plane = dict(poses(volume[0, ..., z]))[pose].numpy()
                around = np.pad(plane, margin, mode="edge")[x : x + patch + 2 * margin, y : y + patch + 2 * margin]
                assert np.allclose(batch[key][i, 0, ..., 0], around, atol=1e-3), key
            found.add((z, *pose))
    assert {z for z, *_ in found} == {0, 1, 2} and {flipped for *_, flipped in found} == {False, True}
    # One angle is one turn, of all patches, and a quarter turn is not its inverse.
    (turns,) = {turns for _, turns, _ in found}
    quarter = angle // 90
    assert turns % 2 == quarter % 2 and (turns == quarter or quarter % 2 == 1)


def test_opposite_quarter_turns_turn_in_opposite_ways():
    hr = noise(20, 17, 1)
    planes, turns = poses(hr[0, ..., 0]), []
    for angle in (90, 270):
        batch = take(loader_of({"hr": hr}, angles=[angle], scales=[1.0]), 1)[0]
        ((turned, _), _) = origin(batch["hr"][0, 0, ..., 0], planes)
        turns.append(turned)
    assert sorted(turns) == [1, 3]


@pytest.mark.parametrize("scale", [1.0, 0.7, 0.5])
@pytest.mark.parametrize("angle", [0, 15, 30, 90, 120, 345])
def test_patches_are_similar_to_what_they_show(angle, scale):
    """HR holds the row and the guide the column of every pixel, so a patch says where each of its pixels is from."""
    rows, columns = torch.meshgrid(torch.arange(160.0), torch.arange(150.0), indexing="ij")
    volume = {"hr": rows[None, ..., None] + 1, "guide": columns[None, ..., None] + 1}
    loader = loader_of(volume, angles=[angle], scales=[scale], patch=PATCH)
    i, j = (a.flatten() - (PATCH - 1) / 2 for a in torch.meshgrid(*[torch.arange(PATCH)] * 2, indexing="ij"))
    basis = torch.stack([i, j, torch.ones_like(i)], dim=1)
    seen = {False: 0, True: 0}
    for batch in take(loader, 8):
        for hr, guide in zip(batch["hr"], batch["guide"], strict=True):
            places = torch.stack([hr.flatten(), guide.flatten()], dim=1)
            far = MARGIN / scale + 3
            if (places < far).any() or (places > torch.tensor([160 - far, 150 - far])).any():
                continue  # at the edge of the plane, where the outermost pixels go on
            fit = torch.linalg.lstsq(basis, places).solution
            # The cubic kernel may bend a ramp a little.
            assert (basis @ fit - places).abs().max() < 0.08
            mirrored = bool(torch.linalg.det(fit[:2]) < 0)
            seen[mirrored] += 1
            turn = torch.tensor([[-1.0, 0], [0, 1]]) @ fit[:2] if mirrored else fit[:2]
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            outer = PATCH + 2 * MARGIN
            step = math.floor(outer / scale + 0.5) / outer  # 1 / scale, to whole pixels
            assert step == pytest.approx(1 / scale, rel=0.03)
            assert torch.allclose(turn, step * torch.tensor([[cos, sin], [-sin, cos]]), atol=0.01)
    assert min(seen.values()) >= 3


def resampled(plane, centre, angle, scale, mirrored):
    """A window with its margin about a point of a plane (H, W), in float64, of the whole plane and by itself."""
    size = PATCH + 2 * MARGIN
    source = math.floor(size / scale + 0.5)
    i, j = torch.meshgrid(*[torch.arange(source, dtype=torch.float64) - (source - 1) / 2] * 2, indexing="ij")
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    places = torch.stack([centre[1] + sin * i + cos * j, centre[0] + cos * i - sin * j], dim=-1)
    grid = 2 * places / torch.tensor([plane.shape[1] - 1, plane.shape[0] - 1]) - 1
    window = F.grid_sample(plane[None, None].double(), grid[None], "bicubic", "border", align_corners=True)[0]
    window = GaussianProfile((source / size, source / size, 1))(window[..., None])
    return window.flip(1) if mirrored else window


@pytest.mark.parametrize("guide_shift", [0.0, 1.5])
def test_every_sample_is_what_its_draws_say(guide_shift):
    """Of volumes smaller and larger than a turned window, some of which are air; all volumes, angles, scales."""
    volumes = [{"hr": noise(n, n + 3, 4, seed=n), "guide": noise(n, n + 3, 4, seed=n + 1)} for n in (18, 40, 90)]
    for volume in volumes:
        volume["hr"][:, : volume["hr"].shape[1] // 2] *= 0.01
    angles, scales, seen = range(0, 360, 30), [1.0, 0.8, 0.5], set()
    loader = loader_of(*volumes, angles=angles, scales=scales, guide_shift=guide_shift, batch_size=12)
    for iteration, batch in enumerate(take(loader, 6), start=1):
        for n in range(12):
            rng = by_definition.generator(0, iteration, n)
            which = by_definition.choice(range(3), rng)
            hr, guide = volumes[which]["hr"], volumes[which]["guide"]
            x, y, z = by_definition.start(hr, (PATCH, PATCH, 1), rng)
            centre = np.array([x, y]) + (PATCH - 1) / 2
            angle, scale = by_definition.choice(angles, rng), by_definition.choice(scales, rng)
            mirrored = by_definition.coin(rng)
            shift = rng.uniform(-guide_shift, guide_shift, size=2) / scale
            context = resampled(hr[0, ..., z], centre, angle, scale, mirrored)
            beside = resampled(guide[0, ..., z], centre + shift, angle, scale, mirrored)
            inner = slice(MARGIN, MARGIN + PATCH)
            expected = {"hr_context": context, "hr": context[:, inner, inner], "guide": beside[:, inner, inner]}
            for key, value in expected.items():
                torch.testing.assert_close(batch[key][n].double(), value, rtol=0, atol=1e-5)
            seen.add((which, scale, mirrored))
    assert len(seen) == 18


def test_the_guide_goes_with_the_image():
    hr = noise(30, 28, 2)
    for batch in take(loader_of({"hr": hr, "guide": 2 * hr + 0.1}), 10):
        assert torch.allclose(batch["guide"], 2 * batch["hr"] + 0.1, atol=1e-4)


def test_half_the_scale_is_half_the_resolution():
    """A patch is cut from the plane as a scan with voxels twice as large would have it."""
    hr, margin = noise(60, 56, 1), 6
    halves = []
    for x, y in itertools.product((0, 1), repeat=2):
        part = hr[:, x : x + 58, y : y + 54]
        halves.append(((x, y), GaussianProfile((2, 2, 1))(part)[0, ..., 0]))
    planes = [((parity, flipped), p.flip(0) if flipped else p) for parity, p in halves for flipped in (False, True)]
    found = set()
    for batch in take(loader_of({"hr": hr}, angles=[0], scales=[0.5], margin=margin, patch=12), 15):
        for patch in batch["hr"][:, 0, ..., 0]:
            windows = [p.unfold(0, 12, 1).unfold(1, 12, 1) for _, p in planes]
            errors = [(w - patch).abs().amax(dim=(2, 3)).min().item() for w in windows]
            # Near the edges of the plane its outermost pixels go on, and none of the four grids reaches there.
            if min(errors) < 5e-3:
                found.add(planes[int(np.argmin(errors))][0])
    assert len(found) == 8


def test_without_a_guide_there_is_none():
    assert take(loader_of({"hr": noise(20, 18, 3)}), 1)[0].keys() == {"hr", "hr_context"}


def test_what_it_cannot_do_is_said():
    for scales in ([], [0.0], [1.0, 1.2], [-0.5]):
        with pytest.raises(ValueError, match="more than 0 and at most 1"):
            loader_of(scales=scales)
    small = {"hr": noise(20, 7, 3)}
    with pytest.raises(ValueError, match=r"0\.nii: .*\(20, 7, 3\) voxels, fewer than the patch \(8, 8, 1\)"):
        loader_of(small)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_guide_shift(scale):
    """The guide alone is off by up to so many pixels of the patch along each axis, as coordinate ramps tell."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    found = []
    for ramp in (rows, columns):
        ramp = ramp[None, ..., None] / 60 + 1
        loader = loader_of({"hr": ramp, "guide": ramp}, angles=[0], scales=[scale], guide_shift=1.5, batch_size=64)
        (batch,) = take(loader, 1)
        difference = (batch["guide"] - batch["hr"])[:, 0, 2:-2, 2:-2, 0] * 60 * scale
        found.append(difference.flatten(1).median(dim=1).values)  # most of a patch is clear of the volume's borders
        assert 1.2 < found[-1].abs().max() < 1.6 and abs(found[-1].mean()) < 0.3
    assert abs(torch.corrcoef(torch.stack(found))[0, 1]) < 0.3, "each axis has a shift of its own"


def test_lr_patches_are_what_their_kernels_make_of_the_turned_slices():
    """LR = A(HR) of every patch, found in the whole slice in its pose; all kernels are drawn, evenly."""
    kernels = torch.rand(3, 2 * MARGIN + 1, 2 * MARGIN + 1)
    kernels /= kernels.sum(dim=(1, 2), keepdim=True)
    hr = noise(40, 36, 2)
    options = {"patch": PATCH, "margin": MARGIN, "angles": QUARTERS, "scales": [1.0], "guide_shift": 0.0}
    options |= {"batch_size": 30, "seed": 0, "device": "cpu"}
    loader = KernelSliceLoader(cache({"hr": hr}), kernels, [0.0, 0.2], 2, **options)
    planes = [((z, pose), p) for z in range(2) for pose, p in poses(hr[0, ..., z])]
    drawn, levels = [], []
    for batch in take(loader, 2):
        assert batch["kernel"].shape == (30, *kernels.shape[1:])
        lr = KernelSampling(2)(batch["hr_context"], batch["kernel"])
        assert lr.shape == (30, 1, PATCH // 2, PATCH // 2, 1) and batch["noise"].shape == (30, 2, *lr.shape[2:])
        levels += batch["noise"].flatten(1).std(dim=1).tolist()
        for i in range(30):
            drawn += [k for k in range(3) if torch.equal(batch["kernel"][i], kernels[k])]
            (z, pose), (x, y) = origin(batch["hr"][i, 0, ..., 0], planes)
            plane = dict(poses(hr[0, ..., z]))[pose]
            # LR pixel 0 lies on the patch's first HR pixel, so the slice is cut there for the operator's grid.
            operator = InPlaneKernel(kernels[drawn[-1]], 1)
            expected = operator(plane[None, ..., None])[0, x : x + PATCH : 2, y : y + PATCH : 2, 0]
            torch.testing.assert_close(lr[i, 0, ..., 0], expected, rtol=0, atol=2e-3)
    assert len(drawn) == 60 and all(10 < drawn.count(k) < 30 for k in range(3))
    noisy = [level for level in levels if level]
    assert 15 < len(noisy) < 45 and 0.1 < min(noisy) and max(noisy) < 0.3
    assert np.sqrt(np.mean(np.square(noisy))) == pytest.approx(0.2, rel=0.1)
    # The patches are those of the loader without kernels, and resume as they do.
    plain = SliceLoader(cache({"hr": hr}), **options)
    loader.set_iteration(1)
    (again,) = take(loader, 1)
    assert all(torch.equal(again[key], batch[key]) for key in batch)
    assert torch.equal(take(plain, 2)[1]["hr"], again["hr"])
    for levels in ([], [0.1, -0.1]):
        with pytest.raises(ValueError, match=r"noise_levels are .* at least 0"):
            KernelSliceLoader(cache({"hr": hr}), kernels, levels, 2, **options)
