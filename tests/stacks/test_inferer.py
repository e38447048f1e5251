"""Several stacks into one volume, with interpolation in the place of the network."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from scipy.ndimage import binary_erosion

from common.degradations import GaussianProfile
from common.inferers import ExamInferer, SplineInferer, StacksInferer
from common.runtime import progress
from common.transforms import LoadScand, RestoreVolumed

from ..refused import has, refused
from ..transforms.grids import warned
from .phantom import Phantom, acquire, grid, moved, save


class Networks:
    """As :class:`common.stacks.ThinSliceNetworks`, of one factor."""

    files, ranges = {4: Path("model.pt")}, {4: {"slice_spacing": [3, 5]}}

    def select_network(self, ratio, like):
        return 4, like


def given(voxels, affine, name):
    meta = {"filename_or_obj": f"{name}.nii.gz"}
    return MetaTensor(torch.from_numpy(voxels).float()[None, None], affine=torch.from_numpy(affine), meta=meta)


def inferer(**options):
    return StacksInferer(Networks(), lambda degradation: SplineInferer(degradation), profile=1.0, **options)


def psnr(result, true):
    return -10 * np.log10(np.mean((np.asarray(result)[0, 0] - true) ** 2))


def test_noise_is_known_where_the_air_is_masked():
    phantom, rng = Phantom(9), np.random.default_rng(9)
    grids = [grid(across) for across in (2, 0)]
    heads = [phantom.stack(*each) for each in grids]
    noisy = [np.hypot(head + 0.03 * rng.normal(size=head.shape), 0.03 * rng.normal(size=head.shape)) for head in heads]
    quality = []
    for masks in ([1, 1], [head > 0.05 for head in heads]):
        stacks = [
            given(n * m, affine, f"{i}") for i, (n, m, (_, affine)) in enumerate(zip(noisy, masks, grids, strict=True))
        ]
        result = inferer()(stacks[0], torch.nn.Identity(), stacks[1:])
        true = phantom.on(result.shape[2:], np.asarray(result.affine)[0])
        deep = binary_erosion(true > 0.1, iterations=4)
        quality.append(-10 * np.log10(np.mean((np.asarray(result)[0, 0] - true)[deep] ** 2)))
    assert quality[1] > quality[0] - 0.5, quality


TURN = 4 * np.array([0.6, 0.48, 0.64])  # degrees


SLICE = "ax.nii.gz: slices left out, counted from 0, with residuals: 8 ("
FAULTS = {"black": SLICE, "doubled": SLICE, "odd slices turned": "", "elsewhere": "ax.nii.gz: left out; "}


@pytest.mark.parametrize("fault", [*FAULTS, "copied"])
def test_a_faulty_stack_is_said_and_does_not_spoil_the_result(fault):
    phantom = Phantom(6)
    stacks = [acquire(phantom, across, name=name) for across, name in ((2, "ax"), (0, "sag"), (1, "cor"))]
    voxels = stacks[0].voxels  # the first is not special
    if fault in ("black", "doubled"):
        voxels[..., 8] = voxels[..., 9] * (fault == "doubled")
    elif fault == "odd slices turned":
        voxels[..., 1::2] = acquire(phantom, 2, motion=moved(np.array([0, 0, 0, *TURN]))).voxels[..., 1::2]
    elif fault == "elsewhere":
        stacks[0].affine[0, 3] += 200
    images = [given(each.voxels.numpy(), each.affine, each.name) for each in stacks]
    images += [given(voxels.numpy(), stacks[0].affine, "again")] * (fault == "copied")
    combining = inferer(spacing=2.0)
    result, messages = warned(lambda: combining(images[0], torch.nn.Identity(), images[1:]))
    said = has(" ".join(messages), FAULTS.get(fault, "again.nii.gz: left out; it is a copy of ax"))
    assert psnr(result, phantom.on(result.shape[2:], np.asarray(result.affine)[0])) > 45
    reports = {name.removesuffix(".nii.gz"): report for name, report in combining.report.items()}
    assert all(abs(report.get("Brightness", 1) - 1) < 0.01 for report in reports.values())
    out = [name for name, report in reports.items() if {"LeftOut", "CopyOf"} & {*report}]
    assert out == [name for name in reports if f"{name}.nii.gz: left out" in said]
    if "LeftOut" not in reports["ax"]:
        assert (reports["ax"]["Slices"]["Weight"][8] == 0) == (fault in ("black", "doubled"))
        assert ("Moved" in reports["ax"]["Slices"]) == (fault == "odd slices turned")


class NearlySymmetric(Phantom):
    def at(self, points):
        return 0.75 * super().at(points) + 0.25 * super().at(points * [-1, 1, 1])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_a_mirrored_stack_is_never_combined(seed):
    """Along any axis of any stack, with motion and noise; of two stacks none says which of them it is."""
    rng, phantom, images = np.random.default_rng(seed), NearlySymmetric(seed, (1, -1)[seed % 2]), {}
    for across in range(3):
        stack = acquire(phantom, across, rng.uniform(-8, 8, 3), moved(rng.uniform(-4, 4, 6) * (across > 0)))
        voxels = np.abs(stack.voxels.numpy() + 0.02 * rng.normal(size=stack.voxels.shape))
        voxels = np.flip(voxels, seed // 3).copy() if across == seed % 3 else voxels
        images[f"{across}.nii.gz"] = given(voxels, stack.affine, str(across))
    with pytest.warns(UserWarning, match="left out; it fits better mirrored"):
        assert {each.name for each in inferer().place_stacks(images)} == {*images} - {f"{seed % 3}.nii.gz"}
        images.pop(f"{(seed + 1) % 3}.nii.gz")
        refused(lambda: inferer().place_stacks(images), ValueError, "no other stack says which")


def test_one_stack_alone():
    """It is made thin; a scan unlike those of the training is warned of."""
    phantom, (shape, affine) = Phantom(7), grid(2, thick=8)
    image = given(phantom.stack(shape, affine), affine, "ax")
    with pytest.warns(UserWarning, match="unlike the training"):
        result = inferer(spacing=2.0)(image, torch.nn.Identity())
    assert psnr(result, phantom.on(result.shape[2:], np.asarray(result.affine)[0])) > 20


def test_stacks_that_are_aligned_already_stay_where_they_are():
    """Also one whose header is 1 mm off. What does not fit is left out all the same."""
    phantom = Phantom(8)
    ax, sag = (acquire(phantom, across, name=name) for across, name in ((2, "ax"), (0, "sag")))
    sag.affine[1, 3] += 1
    other = acquire(Phantom(9), 0, name="other")
    images = [given(each.voxels.numpy(), each.affine, each.name) for each in (ax, sag, other)]
    quality = {}
    for register in (True, False):
        combining = inferer(spacing=2.0, register=register)
        result, messages = warned(lambda run=combining: run(images[0], torch.nn.Identity(), images[1:]))
        quality[register] = psnr(result, phantom.on(result.shape[2:], np.asarray(result.affine)[0]))
        assert np.any(combining.report["sag.nii.gz"]["Moved"]) == register
        said = [message for message in messages if message.startswith("other.nii.gz: left out")]
        assert len(said) == 1 and ("not registered" in said[0]) != register
    assert not any("Moved" in report["Slices"] for report in combining.report.values() if "Slices" in report)
    assert quality[True] > quality[False] + 5, quality
    for wrong in (0, "false", None):
        refused(lambda register=wrong: inferer(register=register), ValueError, "expected True, False or auto")


def test_a_thickness_that_cannot_be_is_ignored():
    shape, affine = grid(2)
    image = given(Phantom(7).stack(shape, affine), affine, "ax")
    image.meta["SliceThickness"] = 40.0
    combining = StacksInferer(Networks(), lambda degradation: SplineInferer(degradation))
    with pytest.warns(UserWarning, match="10 times as thick"):
        (stack,) = combining.place_stacks({"ax.nii.gz": image})
    assert 0.5 <= stack.thickness <= 2 and combining.report["ax.nii.gz"]["ProfileFrom"] != "protocol"
    image.meta["SliceThickness"] = 3.0
    assert combining.place_stacks({"ax.nii.gz": image})[0].thickness == pytest.approx(0.75)


def test_a_contrast_that_cannot_be_made_fails_alone():
    """One that lies elsewhere, in any order; the other is as it is by itself."""
    phantom, (shape, affine) = Phantom(7), grid(2)
    good = given(phantom.stack(shape, affine), affine, "t1")
    far = affine + np.pad([[500.0]] * 3, ((0, 1), (3, 0)))
    other = given(Phantom(7, contrast=-1).stack(shape, affine), far, "t2")
    exam = ExamInferer(Networks(), lambda degradation: SplineInferer(degradation), profile=1.0)
    made = exam(good, torch.nn.Identity(), contrasts=[[other]])
    assert exam.report["t1.nii.gz"]["Edges"] == []
    assert psnr(made, phantom.on(made.shape[2:], np.asarray(made.affine)[0])) > 30
    refused(lambda: exam(other, torch.nn.Identity(), contrasts=[[good]]), ValueError, "t2.nii.gz cannot be registered")


def test_the_bar_counts_the_work_of_an_exam(capsys):
    """Its length is said before; most is done for the first contrast, which is there before the edges of the second."""
    grids, phantom = [grid(across, size=32) for across in (2, 0)], Phantom(7)
    images = [given(phantom.stack(*each), each[1], name) for each, name in zip(grids, "ab", strict=True)]
    exam = ExamInferer(Networks(), lambda degradation: SplineInferer(degradation), profile=1.0)
    counts = []
    with progress.tqdm(total=2, file=open(os.devnull, "w")) as bar:
        for i in range(2):
            with progress.fill_bar(bar, i):
                exam(images[i], torch.nn.Identity(), contrasts=[[images[1 - i]]])
                counts.append(bar.n)
    costs = exam._costs
    assert len(costs) == 7 and counts == pytest.approx([2 * (1 - costs[-1] / sum(costs)), 2])
    assert capsys.readouterr().out.count("the rest of the exam will take about") == 1


def test_a_stack_of_two_thirds_of_the_slices_and_larger_pixels():
    """It gives what it has; where it has nothing the first is as it was."""
    phantom, (shape, affine) = Phantom(8), grid(2)
    first = given(phantom.stack(shape, affine), affine, "ax")
    _, place = grid(0)
    few = place.copy()
    few[:3, 3] += 5 * place[:3, 2]
    coarse = few @ np.diag([2.0, 2, 1, 1])
    second = given(phantom.stack((32, 32, 11), coarse), coarse, "sag")
    result = inferer()(first, torch.nn.Identity(), [second])
    true = phantom.on(result.shape[2:], np.asarray(result.affine)[0])
    alone = np.asarray(SplineInferer(GaussianProfile((1, 1, 4)))(first, torch.nn.Identity()))
    assert psnr(result, true) > psnr(alone, true) + 1
    assert np.abs(np.asarray(result)[0, 0] - np.asarray(alone)[0, 0])[:12].mean() < 0.01


def test_extreme_voxels_give_way_to_what_another_stack_measured(tmp_path):
    """Spikes and a fill value of one stack stay only where no other stack has slices."""
    phantom, (shape, affine), (side, place) = Phantom(3), grid(2), grid(0)
    clean, covered = phantom.stack(shape, affine), np.s_[26:]
    place[:3, 3] += 6 * place[:3, 2]
    spoilt, spikes = clean.copy(), tuple(np.random.default_rng(0).integers(8, 56, (2, 12)))
    spoilt[(*spikes, 5)], spoilt[:, 34:44, 8:] = 32, -9
    expected = np.repeat(spoilt, 4, axis=2)
    sagittal = phantom.stack((*side[:2], 10), place)
    sagittal[30, 30, 4] = 50  # in a stack that is not the first
    read, made = LoadScand("image", slice_axis="auto"), []
    other = read({"image": save(tmp_path / "sag.nii.gz", sagittal, place)})["image"][None]
    for name, voxels in (("clean", clean), ("spoilt", spoilt)):
        image = read({"image": save(tmp_path / f"{name}.nii.gz", voxels, affine)})["image"]
        (volume,) = decollate_batch(inferer()(list_data_collate([image]), torch.nn.Identity(), [other]))
        restored = RestoreVolumed("pred", "image", None)({"image": image, "pred": volume})["pred"]
        made.append(restored[0].numpy() / 1000)
    extreme = (expected > 20) | (expected < -1)
    np.testing.assert_array_equal(made[1][:24][extreme[:24]], expected[:24][extreme[:24]])
    true = phantom.on(made[1].shape, np.asarray(volume.affine))
    hidden = extreme[covered]
    assert hidden.any() and np.abs(made[1] - true)[covered][hidden].mean() < 0.08
    assert np.abs(made[1] - made[0])[covered][~hidden].max() < 0.25
