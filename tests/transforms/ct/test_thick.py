"""Slices that are thick enough for the scale; HR volumes at a spacing, in place."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from common.transforms.ct.thick import CheckThickSlicesd, ResampleHRd


def volume(spacing, shape=(6, 6, 6), function=None):
    """Oblique, the third axis mirrored; voxels are a function of their world coordinates, or random."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 2] *= -1
    affine[:3, 3] = (-31.5, 17.25, -60.125)
    data = torch.rand(1, *shape) if function is None else torch.tensor(function(world(shape, affine)))[None]
    return MetaTensor(data, affine=torch.tensor(affine), meta={"filename_or_obj": "/d/scan.nii.gz"})


def world(shape, affine):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


@pytest.mark.parametrize(
    ("spacing", "scale"),
    [((1, 1, 4), 4), ((0.9, 1, 5), 6), ((1, 1, 1.5), 2), ((0.4, 1, 2), 3), ((1, 0.45, 6), 4), ((1, 1, 2.9), 2)],
)
def test_thick_slices_that_fit_the_scale_pass_in_silence(spacing, scale):
    entry = {"lr": volume(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CheckThickSlicesd("lr", scale)(entry)["lr"] is entry["lr"]


@pytest.mark.parametrize(
    ("spacing", "scale", "said"),
    [
        ((1, 1, 1), 2, r"slices are 1 mm apart and pixels are 1 mm, isotropic or nearly"),
        ((0.5, 1, 1.4), 2, "isotropic or nearly"),
        ((5, 1, 1), 5, "slices are 1 mm apart and pixels are 5 mm.*slice_axis"),
        ((1, 1, 2), 4, r"2 mm .* 1 mm; with scale 4 .*0\.5 mm, finer.*takes 2 by itself.*--scale \"\[1,1,2\]\""),
        ((1, 0.8, 3.4), 6, 'takes 3 by itself.*--scale "\\[1,1,3\\]"'),
        ((1, 1, 1.6), 6, 'takes 2 by itself.*--scale "\\[1,1,2\\]"'),
    ],
)
def test_slices_that_are_not_thick_or_contradict_the_scale_are_refused(spacing, scale, said):
    with pytest.raises(ValueError, match=rf"(?s)scan\.nii\.gz: .*{said}"):
        CheckThickSlicesd("lr", scale)({"lr": volume(spacing)})


def test_a_result_that_stays_anisotropic_is_warned_of():
    with pytest.warns(UserWarning, match=r"scan\.nii\.gz: .* 8 mm .*scale 4 .*anisotropic: slices of 2 mm"):
        CheckThickSlicesd("lr", 4)({"lr": volume((1, 0.5, 8))})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((0.7, 0.7, 0.7), (1, 1, 1)),
        ((0.45, 0.5, 2.5), (1, 1, 1)),
        ((1.2, 0.3, 1), (0.5, 1, 1.005)),
        ((1, 1, 1), (2, 0.5, 1)),
        ((1.5, 1.2, 2), (1, 1, 1)),
    ],
)
def test_a_function_of_the_world_stays_where_it_is(old, new):
    waves, linear = np.array([0.025, 0.0175, 0.02]), np.array([0.01, -0.02, 0.015])
    smooth = lambda x: np.sin(x @ waves) + x @ linear  # noqa: E731
    shape = tuple(int(60 / s) | 1 for s in old)  # odd, so that no whole factor divides it
    hr = volume(old, shape, smooth)
    out = ResampleHRd("hr", new)({"hr": hr})["hr"]
    spacing = np.linalg.norm(np.asarray(out.affine)[:3, :3], axis=0)
    changed = np.abs(np.divide(new, old) - 1) > 0.01
    assert np.abs(spacing - np.where(changed, new, old)).max() < 1e-12
    assert (np.abs(np.multiply(out.shape[1:], spacing) - np.multiply(shape, old)) <= 0.9999 * spacing).all()
    # The edge of the field of view stays: the outer corner of the first voxel.
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.abs(np.asarray(out.affine) @ corner - np.asarray(hr.affine) @ corner).max() < 1e-6
    assert out.meta["filename_or_obj"] == "/d/scan.nii.gz" and hr.shape[1:] == shape
    inner = tuple(slice(max(3, n // 6), -max(3, n // 6)) for n in out.shape[1:])
    expected = smooth(world(out.shape[1:], out.affine))[inner]
    # A profile of 2 mm takes this much of the wave; a tenth of a millimetre off would be some times as much.
    assert np.abs(out[0].numpy()[inner] - expected).max() < 6e-4


def test_what_the_coarser_grid_cannot_hold_is_averaged_away():
    stripes = torch.zeros(1, 40, 40, 40)
    stripes[:, ::2] = 1
    hr = MetaTensor(stripes, affine=torch.eye(4))
    out = ResampleHRd("hr", (2, 1, 1))({"hr": hr})["hr"][0, 3:-3]
    assert out.shape == (14, 40, 40) and (out - 0.5).abs().max() < 0.03


def test_a_spacing_that_is_right_changes_nothing_and_integers_become_real():
    hr = volume((1, 0.995, 2))
    out = ResampleHRd("hr", (1, 1, 1.99))({"hr": hr})["hr"]
    assert torch.equal(out.as_tensor(), hr.as_tensor()) and np.array_equal(out.affine, hr.affine)
    integers = MetaTensor((hr.as_tensor() * 1000).short(), affine=hr.affine)
    assert ResampleHRd("hr", (1, 1, 1))({"hr": integers})["hr"].dtype == torch.float32


def test_options_out_of_range_and_missing_keys():
    for spacing in ((1, 1), (1, 0, 1), (1, 1, float("nan")), 1.0):
        with pytest.raises(ValueError, match="expected three positive numbers"):
            ResampleHRd("hr", spacing)
    for transform in (ResampleHRd("x", (1, 1, 1), True), CheckThickSlicesd("x", 2, True)):
        assert transform({"other": 1}) == {"other": 1}
