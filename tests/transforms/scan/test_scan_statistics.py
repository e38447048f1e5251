"""Scans unlike those of a training are told, each by its file and its fault, and the others are not."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from common.transforms import CheckTrainingRanged, NormaliseVolumed, SliceAxisd, scan_statistics, widened_range
from tests.bundles.runs import phantom

SHAPE, SPACING = (80, 88, 72), (1.9, 2.0, 2.1)
AFFINE = np.diag([*SPACING, 1.0])


def head(seed):
    """A phantom in [0, 1]; air is 0."""
    volume = phantom(seed, SHAPE)
    return volume / np.quantile(volume, 0.999)


def rician(volume, sigma, seed=0):
    real, imaginary = sigma * np.random.default_rng(seed).normal(size=(2, *volume.shape))
    return np.hypot(volume + real, imaginary)


def prepared(volume, affine=AFFINE, file="/d/scan.nii.gz"):
    """As inference prepares a scan."""
    scan = MetaTensor(torch.from_numpy(np.ascontiguousarray(volume))[None], affine=affine)
    scan.meta["filename_or_obj"] = file
    return NormaliseVolumed("image")(SliceAxisd("image")({"image": scan}))["image"]


def statistics(volume, affine=AFFINE):
    scan = prepared(volume, affine)
    return scan_statistics(scan, scan.affine)


def told(training_range, *scans, filters="default"):
    """The messages of a check of one scan after the other."""
    check = CheckTrainingRanged("image", training_range)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(filters)
        for scan in scans:
            before = scan.clone()
            after = check({"image": scan, "other": 1})
            assert after["image"] is scan and torch.equal(scan, before) and after["other"] == 1
    return [str(w.message) for w in caught]


@pytest.fixture(scope="module")
def training_range():
    """Of phantoms with noise of 0.5 to 2 %."""
    return widened_range(statistics(rician(head(seed), 0.005 * (seed % 4 + 1), seed)) for seed in range(8))


@pytest.mark.parametrize("background", ["Rician", "zero"])
@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.04])
def test_noise_is_that_of_the_tissue(sigma, background):
    truth = head(3)
    volume = rician(truth, sigma) * (background == "Rician" or truth > 0.3)
    expected = sigma / np.quantile(volume, 0.999)
    assert statistics(volume)["noise"] == pytest.approx([expected], rel=0.1)


def test_units_and_stored_orientation_do_not_matter():
    volume = rician(head(3), 0.02)
    expected = statistics(volume)
    assert expected["in_plane_spacing"] == pytest.approx(SPACING[:2])
    assert expected["slice_spacing"] == pytest.approx(SPACING[2:])
    for name, values in statistics(3750 * volume).items():
        assert values == pytest.approx(expected[name], rel=1e-3), name
    image = nib.Nifti1Image(volume, AFFINE)
    for axes in ("PSR", "LAI", "SLP"):
        turned = image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(axes)))
        for name, values in statistics(turned.get_fdata(), turned.affine).items():
            # Mirrored, wavelets begin at another voxel.
            assert values == pytest.approx(expected[name], rel=0.05), name


def test_a_scan_of_the_same_kind_passes(training_range):
    scans = [prepared(rician(head(seed), 0.012, seed)) for seed in range(20, 26)]
    assert told(training_range, *scans) == []
    bed = np.zeros((120, 110, 90))
    bed[20:100, 10:98, 5:77] = head(20)
    assert told(training_range, prepared(rician(bed, 0.012))) == []  # more air


def zero_filled(volume, axes):
    """Sinc-interpolated to twice the voxels along these axes, and its affine."""
    affine = AFFINE.copy()
    for axis in axes:
        k_space = np.fft.fftshift(np.fft.fft(volume, axis=axis), axes=axis)
        pad = [(n // 2, n // 2) if a == axis else (0, 0) for a, n in enumerate(volume.shape)]
        volume = np.fft.ifft(np.fft.ifftshift(np.pad(k_space, pad), axes=axis), axis=axis)
        affine[:, axis] /= 2
    return np.abs(volume), affine


def hounsfield(volume):
    """CT: air, a skull, and soft tissues that differ by some 10 HU."""
    surface = (volume > 0.1) & (volume < 0.35)
    hu = np.where(volume > 0.1, 40 + 20 * volume, -1000.0) + 900 * surface
    return hu + 8 * np.random.default_rng(0).normal(size=hu.shape)


SCAN = rician(head(21), 0.012)
KINDS = {
    "small voxels": (SCAN, AFFINE @ np.diag([0.5, 0.5, 0.5, 1]), {"in_plane_spacing", "slice_spacing"}),
    "large voxels": (SCAN, AFFINE @ np.diag([2, 2, 2, 1]), {"in_plane_spacing", "slice_spacing", "tissue_volume"}),
    "thick slices": (SCAN[..., ::3], AFFINE @ np.diag([1, 1, 3, 1]), {"slice_spacing"}),
    "noise": (rician(head(21), 0.06), AFFINE, {"noise"}),
    "zero-filled in plane": (*zero_filled(SCAN, (0, 1)), {"in_plane_detail"}),
    "zero-filled across": (*zero_filled(SCAN, (2,)), {"slice_detail"}),
    "some below 0": (np.where(np.arange(SCAN.size).reshape(SHAPE) % 999, SCAN, -0.2), AFFINE, {"air"}),
    "inverted": (SCAN.max() - SCAN, AFFINE, {"air", "tissue_spread", "tissue_median"}),
    "mask": ((SCAN > 0.3).astype(np.float32), AFFINE, {"tissue_median", "tissue_spread", "noise"}),
    "labels": (np.digitize(head(21), [0.3, 0.6, 0.9]).astype(np.float32), AFFINE, {"noise"}),
    "CT": (hounsfield(head(21)), AFFINE, {"tissue_spread"}),
    "a part": (SCAN[:40, :44], AFFINE, {"tissue_volume"}),
    "contrast agent": (np.where(np.arange(SCAN.size).reshape(SHAPE) % 500, SCAN, 9), AFFINE, {"tissue_median"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_training_did_not_see_is_told(training_range, kind):
    volume, affine, expected = KINDS[kind]
    (message,) = told(training_range, prepared(volume, affine, f"/d/{kind}.nii.gz"))
    assert message.startswith(f"/d/{kind}.nii.gz: ") and "cubic" in message
    found = {name for name in training_range if f"({name})" in message}
    assert expected <= found
    # What was found and the range, once each.
    for name in expected:
        (line,) = [line for line in message.splitlines() if f"({name})" in line]
        low, high = training_range[name]
        assert f"expected {low:.3g} to {high:.3g}" in line
        value = statistics(volume, affine)[name]
        assert f"{value[0]:.3g}" in line and (min(value) < low or max(value) > high)


def test_what_headers_round_is_inside():
    scan = prepared(SCAN)
    for beyond, count in (1.004, 0), (1.006, 1):
        for pair in ([0.1, SPACING[2] / beyond], [SPACING[2] * beyond, 9]):
            assert len(told({"slice_spacing": pair}, scan)) == count


def test_every_bad_scan_is_told_even_twice(training_range):
    scans = [prepared(rician(head(21), 0.06), file=f"/d/{name}.nii.gz") for name in "aba"]
    assert [message[:11] for message in told(training_range, *scans)] == ["/d/a.nii.gz", "/d/b.nii.gz", "/d/a.nii.gz"]
    assert told(training_range, *scans, filters="ignore") == []


def test_only_what_is_named_is_checked():
    scan = prepared(rician(head(21), 0.06))
    for nothing in (None, {}, {"air": [-1, 1], "slice_spacing": [2.1, 2.2]}):
        assert told(nothing, scan) == []
    (message,) = told({"air": [-1, 1], "noise": [0, 0.01]}, scan)
    assert "(noise)" in message and "(air)" not in message
    assert CheckTrainingRanged("image", {"noise": [0, 1]}, allow_missing_keys=True)({"hr": 1}) == {"hr": 1}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([0, 1], "training_range is"),
        ({"nois": [0, 1]}, "'nois', expected .*noise"),
        ({"noise": 0.1}, "noise is 0.1"),
        ({"noise": [1, 0]}, "noise is"),
        ({"noise": [0, "1"]}, "noise is"),
        ({"noise": [0, float("nan")]}, "noise is"),
    ],
)
def test_a_range_that_is_none_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        CheckTrainingRanged("image", wrong)


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 40, 3), (8, 9, 10), (40, 40, 4)])
def test_odd_volumes_are_no_errors(shape):
    sparse = np.zeros(shape)
    sparse[0, 0, 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for volume in (np.random.default_rng(0).random(shape), sparse, np.zeros(shape), np.full(shape, 7.0)):
            found = scan_statistics(torch.from_numpy(volume)[None], np.eye(4))
            assert np.isnan(found["slice_detail"][0]) or shape[2] >= 8
            bounds = {name: [-1e9, 1e9] for name in found}
            scan = MetaTensor(torch.from_numpy(volume)[None], affine=np.eye(4))
            CheckTrainingRanged("image", bounds)({"image": scan})


def test_a_range_holds_all_volumes_and_a_margin():
    found = [{"noise": [0.01], "in_plane_detail": [0.3, 0.4], "air": [0.0], "slice_detail": [np.nan]}]
    found.append({"noise": [0.02], "in_plane_detail": [np.nan, 0.5], "air": [-0.01], "slice_detail": [np.nan]})
    assert widened_range(found) == {
        "noise": [0.008, 0.025],
        "in_plane_detail": [0.24, 0.625],
        "air": [-0.0325, 0.02],
    }
