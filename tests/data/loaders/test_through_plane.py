"""Images across the slices: where they come from, how they are turned, mirrored and given another contrast."""

import itertools

import numpy as np
import pytest
import torch

from common.data import ThroughPlaneLoader, VolumeCache
from common.data.loaders import slabs
from tests.data.loaders import by_definition

PATCH, FACTOR = (6, 3), 2
SHAPES = {"hr": (2, 8, 9, 8), "lr": (2, 9, 8, 5)}  # of two volumes


def encoded(key):
    """Two volumes whose voxels say where they are."""
    shape = SHAPES[key]
    return list((torch.arange(np.prod(shape)).reshape(shape) / np.prod(shape) * 0.9 + 0.1)[:, None])


def places(image, key):
    """Volume and voxel of each pixel of an image (1, p, w): (4, p, w)."""
    index = ((image[0].double() + 1) / 2 - 0.1) / 0.9 * np.prod(SHAPES[key])
    assert (index - index.round()).abs().max() < 0.01
    return np.stack(np.unravel_index(index.round().long().numpy(), SHAPES[key]))


def cache(key, volumes):
    return VolumeCache(
        [{key: f"{i}.nii", "i": i} for i in range(len(volumes))], lambda e: {key: volumes[e["i"]]}, [key]
    )


def loader_of(hr=None, lr=None, **changes):
    options = {"lr_patch": PATCH, "factor": FACTOR, "batch_size": 4, "seed": 0, "device": "cpu", "attributes": 3}
    caches = [cache(key, encoded(key) if v is None else v) for key, v in (("hr", hr), ("lr", lr))]
    return ThroughPlaneLoader(*caches, **options | changes)


def take(loader, n):
    return [batch for _, batch in zip(range(n), loader, strict=False)]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("contrasts", [0, 5])
def test_a_batch_is_a_function_of_the_seed_and_the_iteration(contrasts):
    batches = take(loader_of(contrasts=contrasts, gains=0.1), 5)
    shapes = {"hr": (4, 1, 6, 6), "hr_recoloured": (4, 1, 6, 6), "lr": (4, 1, 6, 3)}
    shapes |= {"prior_ct": (4, 3), "prior_mr": (4, 3), "gains": (4, 1, 1, 3)}
    for batch in batches:
        assert {key: tuple(value.shape) for key, value in batch.items()} == shapes
        assert all(value.dtype == torch.float32 for value in batch.values())
        assert torch.equal(batch["hr"], batch["hr_recoloured"]) == (contrasts == 0)
    torch.manual_seed(3)
    np.random.seed(3)
    again = loader_of(contrasts=contrasts, gains=0.1)
    again.set_iteration(3)
    assert_same(take(again, 2), batches[3:])
    different = [*batches, *take(loader_of(contrasts=contrasts, gains=0.1, seed=1), 5)]
    assert all(not torch.equal(a[key], b[key]) for a, b in itertools.combinations(different, 2) for key in shapes)
    assert len({tuple(code.tolist()) for code in batches[0]["prior_ct"]}) == 4


def test_the_shares_of_processes_make_up_the_batch_of_one(monkeypatch):
    whole, shares = take(loader_of(), 3), []
    monkeypatch.setattr(slabs.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(slabs.dist, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(slabs.dist, "get_rank", lambda rank=rank: rank)
        shares.append(take(loader_of(), 3))
    assert_same([{k: torch.cat([a[k], b[k]]) for k in a} for a, b in zip(*shares, strict=True)], whole)


def test_images_are_cut_across_the_slices_in_both_directions_and_mirrored():
    """HR along both axes, LR never across its slices; nothing pairs the two, and no voxel is never seen."""
    poses, seen = {"hr": [], "lr": []}, {key: np.zeros(shape, bool) for key, shape in SHAPES.items()}
    for batch in take(loader_of(), 250):
        for key, image in [(k, i) for k in poses for i in batch[k]]:
            where = places(image, key)
            seen[key][tuple(where)] = True
            down, across = (np.unique(np.diff(where, axis=axis).reshape(4, -1), axis=1) for axis in (1, 2))
            assert down.shape == across.shape == (4, 1), "one step is taken everywhere"
            assert abs(down[:, 0]).tolist() in ([0, 1, 0, 0], [0, 0, 1, 0]) and abs(across[:, 0]).tolist() == [
                0,
                0,
                0,
                1,
            ]
            poses[key].append((*down[1:3, 0].tolist(), across[3, 0].item()))
    in_plane = {(1, 0), (-1, 0), (0, 1), (0, -1)}
    assert set(poses["hr"]) == {(*axis, z) for axis in in_plane for z in (1, -1)}
    assert set(poses["lr"]) == {(*axis, 1) for axis in in_plane}
    together = list(zip(poses["hr"], poses["lr"], strict=True))
    assert len(set(together)) == 32 and min(together.count(pair) for pair in set(together)) > 10  # of 31
    assert all(voxels.all() for voxels in seen.values())


@pytest.mark.parametrize("contrasts", [0, 5])
def test_every_image_is_what_its_draws_say(contrasts):
    hr = [torch.rand(1, 40, 30, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    lr = [torch.rand(1, 14, 13, 6, generator=torch.Generator().manual_seed(2)) * 1.2]
    for volume in hr:
        volume[:, 15:] *= 0.01
    for iteration, batch in enumerate(take(loader_of(hr, lr, contrasts=contrasts), 6), start=1):
        for n in range(4):
            rng = by_definition.generator(0, iteration, n)
            expected = {}
            for key, volumes, size in (("hr", hr, (6, 6, 1)), ("lr", lr, (6, 3, 1))):
                volume = by_definition.choice(volumes, rng)
                volume = volume.permute((0, 1, 3, 2) if by_definition.coin(rng) else (0, 2, 3, 1))
                x, z, y = by_definition.start(volume, size, rng)
                image = volume[:, x : x + size[0], z : z + size[1], y]
                for axis in (1, 2) if key == "hr" else (1,):
                    image = image.flip(axis) if by_definition.coin(rng) else image
                expected[key] = 2 * image - 1
                if key == "hr":
                    heights = rng.random(contrasts) if contrasts else np.array([0.0, 1.0])
                    heights[0] = 0
                    points = np.linspace(0, 1, len(heights))
                    recoloured = np.interp(image.numpy(), points, heights / heights.max())
                    expected["hr_recoloured"] = torch.from_numpy(2 * recoloured - 1).float()
            for key in ("prior_ct", "prior_mr"):
                expected[key] = torch.from_numpy(rng.standard_normal(3, dtype=np.float32))
            for key, value in expected.items():
                torch.testing.assert_close(batch[key][n], value, rtol=0, atol=1e-6)


def test_another_contrast_is_a_function_of_the_intensity():
    """Linear between its points, from the darkest, which stays; the others may be exchanged."""
    levels = torch.randint(0, 21, (1, 30, 30, 30))
    options = {"hr": [levels / 20], "lr_patch": (24, 12), "lr": [torch.ones(1, 24, 24, 12) * 0.6]}
    plain, curved = (take(loader_of(contrasts=c, **options), 3) for c in (0, 6))
    points, curves = np.arange(0, 21, 4), []
    for before, after in zip(plain, curved, strict=True):
        assert torch.equal(after["hr"], before["hr"]) and torch.equal(after["lr"], before["lr"])
        for old, new in zip(after["hr"], after["hr_recoloured"], strict=True):
            index = ((old + 1) * 10).round()
            values = [new[index == level].unique() for level in range(21)]
            assert all(len(found) == 1 for found in values)
            curve = torch.cat(values).double().numpy()
            np.testing.assert_allclose(curve, np.interp(np.arange(21), points, curve[points]), atol=1e-6)
            assert curve[0] == -1 and curve[1:].min() > -1 and curve.max() == 1
            curves.append(curve)
    assert np.ptp(curves, axis=0)[1:].min() > 0.1, "each patch has a curve of its own"
    assert any((np.diff(curve) < 0).any() for curve in curves)


def test_brightness_of_thick_slices():
    """The logarithm is normal, with a spread that is drawn for each patch; images stay as they are."""
    spreads = []
    options = {"hr": [torch.rand(1, 8, 8, 50) + 0.1], "lr": [torch.ones(1, 6, 6, 16)], "lr_patch": (6, 16), "factor": 3}
    for plain, uneven in zip(*(take(loader_of(gains=g, **options), 50) for g in (0, 0.2)), strict=True):
        assert torch.equal(plain["gains"], torch.ones(4, 1, 1, 16))
        assert all(torch.equal(plain[key], uneven[key]) for key in ("hr", "hr_recoloured"))
        spreads += uneven["gains"].log().std(dim=-1).flatten().tolist()
    assert max(spreads) < 0.4 and min(spreads) < 0.02 and np.mean(spreads) == pytest.approx(0.1, rel=0.2)


def test_any_axis_of_the_source_may_run_across_the_slices():
    cube = torch.arange(512.0).view(1, 8, 8, 8) / 1000 + 0.2
    poses = set()
    for batch in take(loader_of([cube], any_axis="true"), 100):
        for image in batch["hr"]:
            where = np.stack(np.unravel_index((((image[0] + 1) / 2 - 0.2) * 1000).round().long().numpy(), (8, 8, 8)))
            poses.add(tuple(int(np.flatnonzero(np.diff(where, axis=axis)[:, 0, 0])[0]) for axis in (1, 2)))
    assert poses == set(itertools.permutations(range(3), 2))
    with pytest.raises(ValueError, match=r"group 'source', 0\.nii: the hr volume has \(8, 8, 7\).* \(6, 6, 8\)"):
        loader_of([cube[..., :7]], any_axis=True, lr_patch=(6, 4))


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


@pytest.mark.parametrize("wrong", [{"gains": -0.1}, {"gains": float("nan")}, {"zoom": 0.5}, {"zoom": float("inf")}])
def test_gains_and_zoom_have_ranges(wrong):
    with pytest.raises(ValueError, match=r"gains is .* and zoom .*, expected"):
        loader_of(**wrong)


def test_attribute_codes_are_standard_normal():
    assert take(loader_of(attributes=0), 1)[0].keys() == {"hr", "hr_recoloured", "lr", "gains"}
    batches = take(loader_of(batch_size=100), 10)
    codes = torch.cat([torch.cat([b["prior_ct"], b["prior_mr"]], dim=1) for b in batches])
    assert codes.mean(dim=0).abs().max() < 0.1 and (codes.std(dim=0) - 1).abs().max() < 0.1
    assert (torch.corrcoef(codes.T) - torch.eye(6)).abs().max() < 0.15


@pytest.mark.parametrize(
    ("key", "group", "needed"), [("hr", "source", (6, 6, 6)), ("lr", "target", (6, 6, 3))], ids=["hr", "lr"]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_that_do_not_fit_are_named(key, group, needed, axis):
    fits = torch.rand(1, *needed)
    loader_of(**{key: [fits]})
    with pytest.raises(ValueError) as error:
        loader_of(**{key: [fits, fits.narrow(axis + 1, 0, needed[axis] - 1)]})
    said = str(error.value)
    assert f"group '{group}', 1.nii" in said and f"patch {needed}" in said and "lr_patch" in said


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(slabs.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(slabs.dist, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="batch_size 5 does not divide among 2"):
        loader_of(batch_size=5)
