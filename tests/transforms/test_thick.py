"""Slices that are thick enough for the scale; HR volumes at a spacing, in place."""

import numpy as np
import pytest
import torch

from common.transforms.ct import CheckThickSlicesd, ResampleHRd
from tests.refused import refused
from tests.transforms.grids import affine_of, scan_of, told, world_of


def volume(spacing, shape=(6, 6, 6), function=None):
    """Oblique, the third axis mirrored; voxels are a function of their world coordinates, or random."""
    affine = affine_of("RAI", spacing, (20, -15, 35), (-31.5, 17.25, -60.125))
    return scan_of(torch.rand(shape) if function is None else function(world_of(affine, shape)), affine)


def check(spacing, scale, models=None):
    entry = {"lr": volume(spacing)}
    assert CheckThickSlicesd("lr", scale, models)(entry)["lr"] is entry["lr"]


def test_slices_must_fit_the_scale_and_a_result_that_stays_anisotropic_is_warned_of():
    for spacing, scale in (((1, 1, 4), 4), ((0.9, 1, 5), 6), ((1, 1, 1.5), 2), ((0.4, 1, 2), 3), ((1, 0.45, 6), 4)):
        told(lambda spacing=spacing, scale=scale: check(spacing, scale))
    told(lambda: check((1, 1, 2.9), 2))
    told(lambda: check((1, 0.5, 8), 4), "scan.nii.gz", "8 mm", "scale 4", "anisotropic: slices of 2 mm")
    for spacing, scale, *words in [
        ((1, 1, 1), 2, "scan.nii.gz", "slices are 1 mm", "pixels are 1 mm", "isotropic or nearly"),
        ((0.5, 1, 1.4), 2, "isotropic or nearly"),
        ((5, 1, 1), 5, "slices are 1 mm", "pixels are 5 mm", "slice_axis"),
        ((1, 1, 2), 4, "scan.nii.gz", "2 mm", "1 mm", "scale 4", "0.5 mm", '--scale "[1,1,2]"'),
        ((1, 0.8, 3.4), 6, '--scale "[1,1,3]"'),
        ((1, 1, 1.6), 6, '--scale "[1,1,2]"'),
    ]:
        refused(lambda spacing=spacing, scale=scale: check(spacing, scale), ValueError, *words)


def test_weights_that_fit_are_named(tmp_path):
    for name, text in (("model", '{"scale": [1, 1, 4]}'), ("model_2", '{"scale": [1, 1, 2]}'), ("broken", "{")):
        (tmp_path / f"{name}.json").write_text(text)
    refused(lambda: check((1, 1, 2), 4, tmp_path), ValueError, tmp_path / "model_2.json", '--scale "[1,1,2]"')
    told(lambda: check((1, 1, 4), 2, tmp_path), "anisotropic", '--scale "[1,1,4]"', "slices of 1 mm", "model.json")
    told(lambda: check((1, 1, 6), 3, tmp_path), "anisotropic", "[1, 1, 6]", f"none in {tmp_path}")
    told(lambda: check((1, 1, 12), 6, tmp_path), "anisotropic", "No larger scale")


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
    def smooth(world):
        return np.sin(world @ np.array([0.025, 0.0175, 0.02])) + world @ np.array([0.01, -0.02, 0.015])

    shape = tuple(int(60 / s) | 1 for s in old)  # odd, so that no whole factor divides it
    hr = volume(old, shape, smooth)
    out = ResampleHRd("hr", new)({"hr": hr})["hr"]
    spacing = np.linalg.norm(np.asarray(out.affine)[:3, :3], axis=0)
    changed = np.abs(np.divide(new, old) - 1) > 0.01
    assert np.abs(spacing - np.where(changed, new, old)).max() < 1e-12
    assert (np.abs(np.multiply(out.shape[1:], spacing) - np.multiply(shape, old)) <= 0.9999 * spacing).all()
    # The edge of the field of view stays: the outer corner of the first voxel.
    assert np.abs(np.asarray(out.affine - hr.affine) @ (-0.5, -0.5, -0.5, 1)).max() < 1e-6
    assert out.meta["filename_or_obj"] == "/d/scan.nii.gz" and hr.shape[1:] == shape
    inner = tuple(slice(max(3, n // 6), -max(3, n // 6)) for n in out.shape[1:])
    expected = smooth(world_of(out.affine, out.shape[1:]))[inner]
    # A profile of 2 mm takes this much of the wave; a tenth of a millimetre off would be some times as much.
    assert np.abs(out[0].numpy()[inner] - expected).max() < 6e-4


def test_what_the_coarser_grid_cannot_hold_is_averaged_away_and_a_spacing_that_is_right_changes_nothing():
    stripes = (np.indices((40, 40, 40))[0] % 2).astype(np.float32)
    out = ResampleHRd("hr", (2, 1, 1))({"hr": scan_of(stripes, np.eye(4))})["hr"][0, 3:-3]
    assert out.shape == (14, 40, 40) and (out - 0.5).abs().max() < 0.03
    hr = volume((1, 0.995, 2))
    out = ResampleHRd("hr", (1, 1, 1.99))({"hr": hr})["hr"]
    assert torch.equal(out.as_tensor(), hr.as_tensor()) and np.array_equal(out.affine, hr.affine)
    integers = scan_of((hr.as_tensor()[0] * 1000).short(), hr.affine)
    assert ResampleHRd("hr", (1, 1, 1))({"hr": integers})["hr"].dtype == torch.float32
    for spacing in ((1, 1), (1, 0, 1), (1, 1, float("nan")), 1.0):
        refused(lambda s=spacing: ResampleHRd("hr", s), ValueError, "spacing", spacing, "three positive numbers")
    for transform in (ResampleHRd("x", (1, 1, 1), True), CheckThickSlicesd("x", 2, allow_missing_keys=True)):
        assert transform({"other": 1}) == {"other": 1}
