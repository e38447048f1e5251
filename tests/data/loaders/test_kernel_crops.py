"""What each kernel is learned from: which slices, and where in them the crops are drawn."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.spatial.transform import Rotation

from common.data import KernelCropLoader, VolumeCache, select_kernel_cases
from tests.data.loaders import drawn
from tests.refused import refused

CROP, LR_CROP = 6, 4


def noise(*shape, seed=0, air=()):
    """Slices of noise that all differ; those in ``air`` have tissue in one pixel only."""
    volume = 0.5 + 0.5 * drawn.noise(*shape, seed=seed)
    for z in air:
        volume[..., z] *= 0.01
        volume[0, 0, 0, z] = 1
    return volume


def cache(key, volumes, subjects, affines=None):
    if affines:
        volumes = [MetaTensor(volume, affine) for volume, affine in zip(volumes, affines, strict=True)]
    data = [{key: f"{key}{i}.nii", **({"subject": s} if s else {})} for i, s in enumerate(subjects)]
    return VolumeCache(data, lambda entry: {key: volumes[data.index(entry)]}, [key])


def group(key, shapes, subjects=None, air=None, seed=0):
    volumes = [noise(*shape, seed=seed + 10 * i, air=(air or {}).get(i, ())) for i, shape in enumerate(shapes)]
    return cache(key, volumes, subjects or "abcdefgh"[: len(shapes)])


def loader_of(hr=None, lr=None, per="volume", **changes):
    hr = hr or group("hr", [(20, 18, 3), (15, 26, 2), (9, 7, 1)], "abb")
    lr = lr or group("lr", [(10, 9, 2), (8, 13, 3)], "ab", seed=50)
    options = {"crops": 6, "seed": 0, "device": "cpu", **changes}
    return KernelCropLoader(hr, lr, select_kernel_cases(hr, lr, per), CROP, LR_CROP, **options)


def planes(cache, key, volume, slices):
    return [cache[volume][key][0, ..., z] for z in slices]


def same(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_slices_of_a_subject_are_paired_by_their_place(capsys):
    """In space: HR slices run the other way, are 2 mm thick instead of 4, and end before the LR slices do."""
    volumes = [noise(20, 18, 8, air=(0, 7)), noise(16, 17, 4, seed=10)]
    hr_affines = [from_matvec(np.diag([1.0, 1.0, -2.0]), [0, 0, 20.0]), np.diag([1.0, 1.0, 4.0, 1.0])]
    lr_affines = [from_matvec(np.diag([2.0, 2.0, 4.0]), [0, 0, 3.0])]
    hr, lr = cache("hr", volumes, "ab", hr_affines), cache("lr", [noise(10, 9, 5, seed=50, air=(0,))], "a", lr_affines)
    cases = select_kernel_cases(hr, lr, "slice")
    # LR slices 1 to 4 lie at 7, 11, 15 and 19 mm; the HR slices that are not air from 18 down to 8 mm.
    assert [(case.volume, case.slice) for case in cases] == [("lr0.nii", z) for z in (1, 2, 3, 4)]
    for case, z, hr_slice in zip(cases[1:3], (2, 3), (4, 2), strict=True):
        assert same(case.lr, planes(lr, "lr", 0, [z])) and same(case.hr, planes(hr, "hr", 0, [hr_slice]))
    assert same(cases[0].hr, planes(hr, "hr", 0, [6]))
    assert same(cases[3].hr, planes(hr, "hr", 0, range(1, 7))), "nothing at 19 mm but air: all of the subject's"
    assert "1 slices of the LR volumes" in capsys.readouterr().out
    # Every second of them; and of two HR volumes of the subject, a slice each.
    cases = select_kernel_cases(hr, lr, "slice", slice_step=2)
    assert [case.slice for case in cases] == [1, 3] and same(cases[1].hr, planes(hr, "hr", 0, [2]))
    cases = select_kernel_cases(cache("hr", volumes, "aa", hr_affines), lr, "slice")
    assert same(cases[1].hr, planes(hr, "hr", 0, [4]) + planes(hr, "hr", 1, [3]))


def test_an_oblique_slice_is_paired_by_its_middle():
    turned = Rotation.from_euler("xyz", [20, 15, 0], degrees=True).as_matrix() @ np.diag([2.0, 2.0, 4.0])
    hr = cache("hr", [noise(20, 18, 30)], "a", [from_matvec(np.diag([1.0, 1.0, 2.0]), [0, 0, -10.0])])
    lr = cache("lr", [noise(10, 9, 3, seed=50)], "a", [from_matvec(turned, np.zeros(3))])
    for z, case in enumerate(select_kernel_cases(hr, lr, "slice")):
        height = (turned @ [4.5, 4, z])[2]
        assert same(case.hr, planes(hr, "hr", 0, [round((height + 10) / 2)]))


@pytest.mark.parametrize("per", ["slice", "volume"])
def test_lr_scans_that_are_sharper_than_every_other_pixel_of_hr_scans_are_reported(per, capsys):
    sharp = noise(40, 40, 4)
    blurred = torch.from_numpy(gaussian_filter(sharp[0].numpy(), (1.5, 1.5, 0)))[None]
    for hr, lr, said in ((blurred, sharp[:, ::2, ::2], True), (sharp, blurred[:, ::2, ::2], False)):
        select_kernel_cases(cache("hr", [hr], "a"), cache("lr", [lr], "b"), per)
        out = capsys.readouterr().out
        assert ("lr0.nii has more detail" in out) == said and ("no HR scan of b; " in out) == (per == "slice")


@pytest.mark.parametrize(("subjects", "lr_subjects"), [("ab", "cd"), (("", ""), ("", ""))])
def test_without_the_subject_all_hr_slices_are_pooled(subjects, lr_subjects, capsys):
    hr = group("hr", [(20, 18, 5), (16, 17, 40)], subjects, {0: (4,)})
    lr = group("lr", [(10, 9, 3), (10, 9, 2)], lr_subjects, seed=50)
    spread = sorted({round(z) for z in np.linspace(0, 39, 32)})
    pooled = planes(hr, "hr", 0, range(4)) + planes(hr, "hr", 1, spread)
    cases = select_kernel_cases(hr, lr, "slice")
    expected = [("lr0.nii", z) for z in range(3)] + [("lr1.nii", z) for z in range(2)]
    assert [(case.volume, case.slice) for case in cases] == expected
    assert all(same(case.hr, pooled) for case in cases) and len(spread) == 32
    assert "air" not in capsys.readouterr().out  # which is said of LR slices only


def test_a_kernel_of_a_volume_has_all_its_slices():
    hr = group("hr", [(20, 18, 5), (16, 17, 4)], "ab")
    lr = group("lr", [(10, 9, 40), (10, 9, 6)], "ac", {1: (0, 3)}, seed=50)
    cases = select_kernel_cases(hr, lr, "volume")
    assert [(case.volume, case.slice) for case in cases] == [("lr0.nii", None), ("lr1.nii", None)]
    assert len(cases[0].lr) == 32 and same(cases[0].lr[::31], planes(lr, "lr", 0, [0, 39]))
    assert same(cases[1].lr, planes(lr, "lr", 1, [1, 2, 4, 5]))
    assert same(cases[0].hr, planes(hr, "hr", 0, range(5)))
    assert same(cases[1].hr, planes(hr, "hr", 0, range(5)) + planes(hr, "hr", 1, range(4)))
    cases = select_kernel_cases(hr, lr, "volume", slice_step=3)
    assert same(cases[1].lr, planes(lr, "lr", 1, [1, 5])) and len(cases[0].lr) == 14


def test_refused():
    hr, lr = group("hr", [(20, 18, 5)]), group("lr", [(10, 9, 3)])
    for call, words in (
        (lambda: select_kernel_cases(hr, lr, "patch"), ["kernel_per", "'patch'", "slice or volume"]),
        (lambda: select_kernel_cases(hr, lr, "slice", 0), ["slice_step", "0"]),
        (lambda: select_kernel_cases(hr, lr, "slice", 1.5), ["slice_step", "1.5"]),
        (lambda: select_kernel_cases(hr, lr, "slice", True), ["slice_step", "True"]),
        (
            lambda: select_kernel_cases(hr, group("lr", [(10, 9, 3)] * 2, air={1: range(3)}), "slice"),
            ["lr1.nii", "air"],
        ),
        (lambda: select_kernel_cases(group("hr", [(20, 18, 3)], air={0: range(3)}), lr, "slice"), ["hr0.nii", "air"]),
        (lambda: loader_of(group("hr", [(5, 18, 3)]), lr), ["'source'", "hr0.nii", "(5, 18, 3)", "(6, 6, 1)", "crop"]),
        (lambda: loader_of(group("hr", [(20, 5, 3)]), lr), ["'source'", "hr0.nii", "(20, 5, 3)", "(6, 6, 1)", "crop"]),
        (lambda: loader_of(hr, group("lr", [(3, 9, 3)])), ["'target'", "lr0.nii", "(3, 9, 3)", "(4, 4, 1)", "crop"]),
    ):
        refused(call, ValueError, *words)


@pytest.mark.parametrize("per", ["slice", "volume"])
def test_crops_are_drawn_where_slices_have_edges(per):
    """By their mean gradient, of slices of several sizes, some shared by cases, and of one that is flat on one side."""
    volumes = [noise(20, 18, 3), noise(15, 26, 2, seed=10), noise(9, 7, 1, seed=20)]
    volumes[1][:, :, :12] = 0.5 + 1e-3 * volumes[1][:, :, :12]
    loader = loader_of(cache("hr", volumes, "abb"), per=per)
    batches = drawn.take(loader, 40)
    for n, case in enumerate(loader.cases):
        for key, pool, edge in (("hr", case.hr, CROP), ("lr", case.lr, LR_CROP)):
            weights, half = [], edge // 2
            for plane in map(np.asarray, pool):
                gradient = np.hypot(*np.gradient(plane.astype(np.float64)))
                weight = uniform_filter(gradient, edge)[half:, half:]
                weights.append(weight[: len(plane) - edge + 1, : plane.shape[1] - edge + 1])
            crops = [crop for batch in batches for crop in batch[key][n]]
            places = [drawn.origin(crop[..., None], [plane[..., None] for plane in pool]) for crop in crops]
            assert all((order, mirrored) == ((0, 1, 2), ()) for _, order, mirrored, _ in places)
            assert {which for which, *_ in places} == {*range(len(pool))}
            found = np.mean([weights[which][x, y] for which, *_, (x, y, _) in places])
            expected = np.mean([(weight**2).sum() / weight.sum() for weight in weights])
            assert found == pytest.approx(expected, rel=0.05)


def test_a_batch_is_a_function_of_seed_and_iteration_and_shared_by_processes(monkeypatch):
    drawn.check_draws(lambda **changes: loader_of(per="slice", **changes), "lr")
    drawn.check_shares(loader_of, monkeypatch, dim=1, option="crops")
