import nibabel as nib
import numpy as np
import pytest
import torch
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


def make_stack(head, axis, path):
    """A stack with slices along an axis of a head."""
    profile = GaussianProfile(tuple(FACTOR if i == axis else 1 for i in range(3)))
    affine = profile.compute_lr_affine(head.affine)
    nib.save(nib.Nifti1Image(profile(torch.from_numpy(head.voxels)).numpy(), affine), path)
    return path


def test_slices_of_another_stack_show_as_bands_at_their_frequency_alone(head, tmp_path):
    fine, other = (MeasuredStack(make_stack(head, axis, tmp_path / f"{axis}.nii.gz")) for axis in (2, 0))
    stripes = 1 + 0.06 * np.cos(2 * np.pi * np.arange(64) / FACTOR)[:, None, None]
    still = np.eye(4)
    (clean,), (banded,) = (
        fine.measure_bands(Volume(np.float32(head.voxels * each), head.affine), still, other) for each in (1, stripes)
    )
    assert clean["thin"] == pytest.approx(clean["thin_beside"], rel=0.3)
    assert banded["thin"] > 3 * clean["thin"]
    assert banded["thin_beside"] == pytest.approx(clean["thin_beside"], rel=0.3)
