"""Several stacks into one volume, with interpolation in the place of the network."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from scipy.ndimage import binary_erosion

from common.degradations import GaussianProfile
from common.inferers import ExamInferer, SplineInferer, StacksInferer
from common.transforms import LoadScand, RestoreVolumed

from ..refused import has, refused
from .phantom import Phantom, grid, moved, save


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


def stack_of_moving_slices(phantom, shape, affine, rng):
    slices = []
    for i in range(shape[2]):
        place = affine.copy()
        place[:3, 3] += i * place[:3, 2]
        motion = moved(np.concatenate([rng.uniform(-1, 1, 3), rng.uniform(-1.5, 1.5, 3)]))
        slices.append(phantom.stack((*shape[:2], 1), place, np.linalg.inv(motion)))
    return np.concatenate(slices, axis=2)


def test_slices_that_moved_by_themselves_are_put_back():
    phantom, rng = Phantom(6), np.random.default_rng(6)
    shapes = [grid(across) for across in (2, 0, 1)]
    stacks = [given(phantom.stack(*shapes[0]), shapes[0][1], "ax")]
    for name, (shape, affine) in zip(("sag", "cor"), shapes[1:], strict=True):
        stacks.append(given(stack_of_moving_slices(phantom, shape, affine, rng), affine, name))
    quality = []
    for slice_motion in (False, True):
        result = inferer(slice_motion=slice_motion)(stacks[0], torch.nn.Identity(), stacks[1:])
        quality.append(psnr(result, phantom.on(result.shape[2:], np.asarray(result.affine)[0])))
    assert quality[1] > quality[0] + 3


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


def test_a_scan_unlike_those_of_the_training_is_warned_of():
    phantom, (shape, affine) = Phantom(7), grid(2, thick=8)
    with pytest.warns(UserWarning, match="not like the scans"):
        with pytest.raises(ValueError, match="no other stack"):
            inferer()(given(phantom.stack(shape, affine), affine, "ax"), torch.nn.Identity())


def test_what_is_left_out_and_why():
    """A head that lies elsewhere, another contrast; where nothing is left, the case fails."""
    phantom, (shape, affine) = Phantom(7), grid(2)
    first = given(phantom.stack(shape, affine), affine, "ax")
    side, place = grid(0)
    good = given(phantom.stack(side, place), place, "sag")
    far = place.copy()
    far[0, 3] += 45
    elsewhere = given(phantom.stack(side, place), far, "far")
    other = given(Phantom(7, contrast=-1).stack(side, place), place, "t2")
    combining = inferer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = combining(first, torch.nn.Identity(), [other, good])
    assert result.shape == (1, 1, 64, 64, 64)
    has(str(caught[0].message), "t2.nii.gz: left out; its contrast differs")
    assert set(combining.report["t2.nii.gz"]) >= {"LeftOut", "Moved", "Likeness"}
    assert combining.report["sag.nii.gz"]["Brightness"] == pytest.approx(1, abs=0.02)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        refused(
            lambda: combining(first, torch.nn.Identity(), [elsewhere]), ValueError, "ax.nii.gz: no other stack", "far"
        )


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
    clean, covered = phantom.stack(shape, affine), np.s_[24:]
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
    assert np.abs(made[1] - made[0])[covered][~hidden].max() < 0.1
