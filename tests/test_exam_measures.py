import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from common.degradations import GaussianProfile
from tests.benchmarks.exam_measures import MeasuredStack, Volume

FACTOR = 4


@pytest.fixture
def head():
    voxels = gaussian_filter(np.random.default_rng(0).normal(size=(64, 64, 64)), 1.0)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([10, -20, 5], degrees=True).as_matrix()
    return Volume((100 * voxels + 50).astype(np.float32), affine)


def make_stack(head, axis, path, shift=0.0):
    """A stack with slices along an axis of a head, said to lie so many mm further than it does."""
    profile = GaussianProfile(tuple(FACTOR if i == axis else 1 for i in range(3)))
    affine = profile.compute_lr_affine(head.affine)
    affine[:3, 3] += shift
    nib.save(nib.Nifti1Image(profile(torch.from_numpy(head.voxels)).numpy(), affine), path)
    return path


def test_a_volume_predicts_its_own_slices_after_motion_in_any_brightness(head, tmp_path):
    stack = MeasuredStack(make_stack(head, 1, tmp_path / "stack.nii.gz", shift=1.5))
    bright = Volume(3 * head.voxels + 20, head.affine)
    noise = Volume(np.random.default_rng(1).normal(size=head.voxels.shape).astype(np.float32), head.affine)
    predictions = {
        name: stack.predict(each, stack.fit_motion(each)) for name, each in {"true": bright, "noise": noise}.items()
    }
    assert stack.fit_motion(bright)[3:] == pytest.approx([-1.5] * 3, abs=0.2)
    results = stack.compare(predictions)
    assert results["true"][0] > 0.98
    assert results["true"][1] > 20
    assert abs(results["noise"][0]) < 0.2


def test_slices_of_another_stack_show_as_bands_at_their_frequency_alone(head, tmp_path):
    fine, other = (MeasuredStack(make_stack(head, axis, tmp_path / f"{axis}.nii.gz")) for axis in (2, 0))
    stripes = 1 + 0.06 * np.cos(2 * np.pi * np.arange(64) / FACTOR)[:, None, None]
    still = np.zeros(6)
    (clean,), (banded,) = (
        fine.measure_bands(Volume(np.float32(head.voxels * each), head.affine), still, other) for each in (1, stripes)
    )
    assert clean["thin"] == pytest.approx(clean["thin_beside"], rel=0.3)
    assert banded["thin"] > 3 * clean["thin"]
    assert banded["thin_beside"] == pytest.approx(clean["thin_beside"], rel=0.3)


def test_a_mask_and_the_fields_of_view_limit_what_is_compared(head, tmp_path):
    path = make_stack(head, 2, tmp_path / "stack.nii.gz")
    mask = np.zeros(nib.load(path).shape, np.uint8)
    mask[20:40] = 1
    nib.save(nib.Nifti1Image(mask, nib.load(path).affine), tmp_path / "mask.nii.gz")
    stack = MeasuredStack(path, tmp_path / "mask.nii.gz")
    index = apply_affine(np.linalg.inv(head.affine), stack.points)
    assert (index[:, 0].round() >= 20).all() and (index[:, 0].round() < 40).all()
    half = Volume(head.voxels[:30], head.affine)
    _, covered = stack.predict(half, np.zeros(6))
    assert (index[covered, 0] < 29.5).all() and covered.any()
