"""What each kernel is learned from: which slices, and where in them the crops are drawn."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import chisquare

from common.data import KernelCropLoader, VolumeCache, kernel_cases
from common.data.loaders import slabs

CROP, LR_CROP = 6, 4


def noise(*shape, seed=0, air=()):
    """Slices of noise that all differ; those in ``air`` have tissue in one pixel only."""
    volume = 0.5 + 0.5 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))
    for z in air:
        volume[..., z] *= 0.01
        volume[0, 0, 0, z] = 1
    return volume


def cache(key, volumes, subjects, affines=None):
    data = [{key: f"{key}{i}.nii", **({"subject": s} if s else {})} for i, s in enumerate(subjects)]

    def load(entry):
        i = int(entry[key][len(key)])
        return {key: volumes[i] if affines is None else MetaTensor(volumes[i], affine=affines[i])}

    return VolumeCache(data, load, [key])


def group(key, shapes, subjects=None, air=None, seed=0):
    volumes = [noise(*shape, seed=seed + 10 * i, air=(air or {}).get(i, ())) for i, shape in enumerate(shapes)]
    return cache(key, volumes, subjects or "abcdefgh"[: len(shapes)])


def planes(cache, key, volume, slices):
    return [cache[volume][key][0, ..., z] for z in slices]


def same(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_slices_of_a_subject_are_paired_by_their_place(capsys):
    """In space: HR slices run the other way, are 2 mm thick instead of 4, and end before the LR slices do."""
    volumes = [noise(20, 18, 8, air=(0, 7)), noise(16, 17, 4, seed=10)]
    hr_affines = [from_matvec(np.diag([1.0, 1.0, -2.0]), [0, 0, 20.0]), np.diag([1.0, 1.0, 4.0, 1.0])]
    hr = cache("hr", volumes, "ab", hr_affines)
    lr_affine = from_matvec(np.diag([2.0, 2.0, 4.0]), [0, 0, 3.0])
    lr = cache("lr", [noise(10, 9, 5, seed=50, air=(0,))], "a", [lr_affine])
    cases = kernel_cases(hr, lr, "slice")
    # LR slices 1 to 4 lie at 7, 11, 15 and 19 mm; the HR slices that are not air from 18 down to 8 mm.
    assert [(case.volume, case.slice) for case in cases] == [("lr0.nii", z) for z in (1, 2, 3, 4)]
    for case, z, hr_slice in zip(cases[1:3], (2, 3), (4, 2), strict=True):
        assert same(case.lr, planes(lr, "lr", 0, [z])) and same(case.hr, planes(hr, "hr", 0, [hr_slice]))
    assert same(cases[0].hr, planes(hr, "hr", 0, [6]))
    assert same(cases[3].hr, planes(hr, "hr", 0, range(1, 7))), "nothing at 19 mm but air: all of the subject's"
    assert "1 slices of the LR volumes are (nearly) all air" in capsys.readouterr().out
    # Every second of them; and of two HR volumes of the subject, a slice each.
    cases = kernel_cases(hr, lr, "slice", slice_step=2)
    assert [case.slice for case in cases] == [1, 3] and same(cases[1].hr, planes(hr, "hr", 0, [2]))
    cases = kernel_cases(cache("hr", volumes, "aa", hr_affines), lr, "slice")
    assert same(cases[1].hr, planes(hr, "hr", 0, [4]) + planes(hr, "hr", 1, [3]))


def test_lr_scans_that_are_sharper_than_hr_scans_are_reported(capsys):
    """Detail of LR slices against that of every other pixel of HR slices."""
    sharp = noise(40, 40, 4)
    blurred = torch.from_numpy(gaussian_filter(sharp[0].numpy(), (1.5, 1.5, 0)))[None]
    for hr, lr, said in ((blurred, sharp[:, ::2, ::2], True), (sharp, blurred[:, ::2, ::2], False)):
        for per in ("slice", "volume"):
            kernel_cases(cache("hr", [hr], "a"), cache("lr", [lr], "b"), per)
            out = capsys.readouterr().out
            assert ("lr0.nii has more detail than HR scans" in out) == said
            assert ("no HR scan of b; " in out) == (per == "slice")


@pytest.mark.parametrize("subjects", ["ab", ("", "")], ids=str)
def test_without_the_subject_all_hr_slices_are_pooled(subjects, capsys):
    hr = group("hr", [(20, 18, 5), (16, 17, 40)], subjects, {0: (4,)})
    lr = group("lr", [(10, 9, 3), (10, 9, 2)], "cd" if subjects == "ab" else subjects, seed=50)
    spread = sorted({round(z) for z in np.linspace(0, 39, 32)})
    pooled = planes(hr, "hr", 0, range(4)) + planes(hr, "hr", 1, spread)
    cases = kernel_cases(hr, lr, "slice")
    assert [(case.volume[:3], case.slice) for case in cases] == [
        ("lr0", 0),
        ("lr0", 1),
        ("lr0", 2),
        ("lr1", 0),
        ("lr1", 1),
    ]
    assert all(same(case.hr, pooled) for case in cases) and len(spread) == 32
    assert "air" not in capsys.readouterr().out  # which is said of LR slices only


def test_a_kernel_of_a_volume_has_all_its_slices():
    hr = group("hr", [(20, 18, 5), (16, 17, 4)], "ab")
    lr = group("lr", [(10, 9, 40), (10, 9, 6)], "ac", {1: (0, 3)}, seed=50)
    cases = kernel_cases(hr, lr, "volume")
    assert [(case.volume, case.slice) for case in cases] == [("lr0.nii", None), ("lr1.nii", None)]
    assert len(cases[0].lr) == 32 and same(cases[0].lr[::31], planes(lr, "lr", 0, [0, 39]))
    assert same(cases[1].lr, planes(lr, "lr", 1, [1, 2, 4, 5]))
    assert same(cases[0].hr, planes(hr, "hr", 0, range(5)))
    assert same(cases[1].hr, planes(hr, "hr", 0, range(5)) + planes(hr, "hr", 1, range(4)))
    cases = kernel_cases(hr, lr, "volume", slice_step=3)
    assert same(cases[1].lr, planes(lr, "lr", 1, [1, 5])) and len(cases[0].lr) == 14


def test_what_it_cannot_do_is_said():
    hr, lr = group("hr", [(20, 18, 5)]), group("lr", [(10, 9, 3)])
    with pytest.raises(ValueError, match="kernel_per is 'patch', expected slice or volume"):
        kernel_cases(hr, lr, "patch")
    for step in (0, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"slice_step is .* expected a whole number, 1 or more"):
            kernel_cases(hr, lr, "slice", step)
    for name, groups in (
        ("lr1", (hr, group("lr", [(10, 9, 3)] * 2, air={1: range(3)}))),
        ("hr0", (group("hr", [(20, 18, 3)], air={0: range(3)}), lr)),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.nii: every slice is \(nearly\) all air"):
            kernel_cases(*groups, "slice")
    for wrong, match in (((5, 18, 3), "'source', hr0.*use a smaller crop"), ((20, 5, 3), "'source', hr0")):
        with pytest.raises(ValueError, match=match):
            loader_of(group("hr", [wrong]), lr)
    with pytest.raises(ValueError, match=r"'target', lr0\.nii: .*\(3, 9, 3\) voxels, fewer than the patch \(4, 4, 1\)"):
        loader_of(hr, group("lr", [(3, 9, 3)]))


def loader_of(hr=None, lr=None, cases=None, per="volume", crops=6, **changes):
    hr = hr or group("hr", [(20, 18, 3), (15, 26, 2), (9, 7, 1)], "abb")
    lr = lr or group("lr", [(10, 9, 2), (8, 13, 3)], "ab", seed=50)
    cases = kernel_cases(hr, lr, per) if cases is None else cases
    return KernelCropLoader(hr, lr, cases, CROP, LR_CROP, crops, **{"seed": 0, "device": "cpu", **changes})


def take(loader, n):
    return [batch for _, batch in zip(range(n), loader, strict=False)]


def origin(crop, slices):
    """Which slice has the crop, and where."""
    edge = len(crop)
    for i, plane in enumerate(slices):
        windows = plane.unfold(0, edge, 1).unfold(1, edge, 1)
        for place in (windows == crop).all(dim=3).all(dim=2).nonzero().tolist():
            return i, *place
    raise AssertionError("the crop is from none of the slices")


def test_crops_are_cut_from_the_slices_of_their_case():
    """Of slices of several sizes, some shared by cases; every slice and the far corners are reached."""
    loader, seen = loader_of(), set()
    for batch in take(loader, 60):
        assert batch["hr"].shape == (2, 6, CROP, CROP) and batch["lr"].shape == (2, 6, LR_CROP, LR_CROP)
        for i, case in enumerate(loader.cases):
            for key in ("hr", "lr"):
                seen |= {(i, key, *origin(crop, getattr(case, key))) for crop in batch[key][i]}
    for i, case in enumerate(loader.cases):
        for key, edge in (("hr", CROP), ("lr", LR_CROP)):
            pool = getattr(case, key)
            found = [place for n, k, *place in seen if (n, k) == (i, key)]
            assert {slice_ for slice_, *_ in found} == set(range(len(pool)))
            for axis in (0, 1):
                reached = [(place[axis + 1], pool[place[0]].shape[axis] - edge) for place in found]
                assert {0} <= {a for a, _ in reached} and any(a == last for a, last in reached)


def test_hr_and_lr_places_are_drawn_independently():
    loader = loader_of(group("hr", [(20, 18, 1)]), group("lr", [(10, 9, 1)], seed=50), crops=64)
    places = []
    for batch in take(loader, 4):
        for hr, lr in zip(batch["hr"][0], batch["lr"][0], strict=True):
            places.append([*origin(hr, loader.cases[0].hr)[1:], *origin(lr, loader.cases[0].lr)[1:]])
    correlation = np.corrcoef(places, rowvar=False)
    assert np.abs(correlation[:2, 2:]).max() < 0.2


def test_places_are_drawn_by_the_gradient_in_the_crop():
    """A slice that is flat on one side: every place as often as the mean gradient there, written with scipy, says."""
    hr = 0.5 * torch.rand(1, 14, 24, 1, generator=torch.Generator().manual_seed(0))
    hr[:, :, :12] *= 1e-4  # all but flat: crops show where they are from
    loader = loader_of(cache("hr", [hr + 0.5], "a"), group("lr", [(10, 9, 1)], seed=50), crops=500)
    gradient = np.hypot(*np.gradient(hr[0, ..., 0].double().numpy()))
    half = CROP // 2
    expected = uniform_filter(gradient, CROP)[half : half + 15 - CROP, half : half + 25 - CROP]
    counts = np.zeros_like(expected)
    for batch in take(loader, 8):
        for crop in batch["hr"][0]:
            counts[origin(crop, loader.cases[0].hr)[1:]] += 1
    expected *= counts.sum() / expected.sum()
    flat = expected < 0.1
    assert flat.sum() == 6 * 9 and counts[flat].sum() <= 3
    assert chisquare(counts[~flat], expected[~flat] * counts[~flat].sum() / expected[~flat].sum()).pvalue > 0.001
    even = np.full((~flat).sum(), counts[~flat].mean())
    assert chisquare(counts[~flat], even).pvalue < 1e-9, "the test must see even draws"


def test_slices_of_a_case_are_drawn_evenly():
    """However large or textured they are."""
    hr = [torch.full((1, 40, 40, 1), 0.5), noise(9, 9, 1)]
    hr[0][0, :8, :8] = 1
    loader = loader_of(cache("hr", hr, "aa"), group("lr", [(10, 9, 1)], "a"), crops=400)
    (batch,) = take(loader, 1)
    large = sum(origin(crop, loader.cases[0].hr)[0] == 0 for crop in batch["hr"][0])
    assert 150 < large < 250


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_a_batch_is_a_function_of_the_seed_and_the_iteration():
    batches = take(loader_of(per="slice"), 5)
    torch.manual_seed(3)
    np.random.seed(3)
    again = loader_of(per="slice")
    again.set_iteration(3)
    assert_same(take(again, 2), batches[3:])
    different = [*batches, *take(loader_of(per="slice", seed=1), 5)]
    assert all(not torch.equal(a["lr"], b["lr"]) for a, b in itertools.combinations(different, 2))


def test_what_a_kernel_sees_does_not_depend_on_how_many_follow():
    loader = loader_of()
    for number in (1, 2):
        for batch, part in zip(take(loader_of(), 3), take(loader_of(cases=loader.cases[:number]), 3), strict=True):
            assert all(torch.equal(batch[key][:number], part[key]) for key in batch)


def test_the_shares_of_processes_make_up_the_batch_of_one(monkeypatch):
    whole, shares = take(loader_of(), 3), []
    monkeypatch.setattr(slabs.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(slabs.dist, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(slabs.dist, "get_rank", lambda rank=rank: rank)
        shares.append(take(loader_of(), 3))
    joined = [{k: torch.cat([a[k], b[k]], dim=1) for k in a} for a, b in zip(*shares, strict=True)]
    assert_same(joined, whole)
    with pytest.raises(ValueError, match="5 does not divide among 2"):
        loader_of(crops=5)
