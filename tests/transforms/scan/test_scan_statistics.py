"""Scans unlike those of a training, and what is no scan, are told, each by its file and fault; others are not."""

import json
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

from common.runtime.errors import Notice
from common.transforms import CheckTrainingRanged, NormaliseVolumed, SliceAxisd, compute_scan_statistics, widen_range
from tests.bundles.runs import ROOT, phantom
from tests.refused import refused
from tests.transforms.grids import rician, scan_of, stored_as, zero_filled

SHAPE, SPACING = (80, 88, 72), (1.9, 2.0, 2.1)
AFFINE = np.diag([*SPACING, 1.0])


def head(seed):
    """A phantom in [0, 1]; air is 0."""
    volume = phantom(seed, SHAPE)
    return volume / np.quantile(volume, 0.999)


def prepared(volume, affine=AFFINE, file="/d/scan.nii.gz"):
    entry = {"image": scan_of(np.ascontiguousarray(volume), affine, file)}
    return NormaliseVolumed("image")(SliceAxisd("image")(entry))["image"]


def statistics(volume, affine=AFFINE):
    scan = prepared(volume, affine)
    return compute_scan_statistics(scan, scan.affine)


def told(training_range, *scans, filters="default", scale=(2, 2, 2)):
    """The text of each warning that is no notice."""
    check = CheckTrainingRanged("image", training_range, scale)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(filters)
        for scan in scans:
            before = scan.clone()
            done = check({"image": scan, "other": 1})
            done.pop("outside_training", "")
            assert done == {"image": scan, "other": 1} and torch.equal(scan, before)
    return [str(w.message) for w in caught if w.category is UserWarning]


@pytest.fixture(scope="module")
def training_range():
    return widen_range(statistics(rician(head(seed), 0.005 * (seed % 4 + 1), seed)) for seed in range(8))


@pytest.mark.parametrize(("sigma", "air"), [(0.01, True), (0.02, True), (0.02, False), (0.04, True), (0.04, False)])
def test_noise_is_that_of_the_tissue_whether_air_has_noise_or_is_0(sigma, air):
    truth = head(3)
    volume = rician(truth, sigma) * (air | (truth > 0.3))
    assert statistics(volume)["noise"] == pytest.approx([sigma / np.quantile(volume, 0.999)], rel=0.1)


def test_units_and_stored_orientation_do_not_matter():
    volume = rician(head(3), 0.02)
    expected = statistics(volume)
    assert [*expected["in_plane_spacing"], *expected["slice_spacing"]] == pytest.approx(SPACING)
    # Mirrored, wavelets begin at another voxel.
    mirrored = [(stored_as(nib.Nifti1Image(volume, AFFINE), codes), 0.05) for codes in ("PSR", "LAI", "SLP")]
    for image, rel in [(nib.Nifti1Image(3750 * volume, AFFINE), 1e-3), *mirrored]:
        for name, values in statistics(image.get_fdata(), image.affine).items():
            assert values == pytest.approx(expected[name], rel=rel), name


def test_a_scan_of_the_same_kind_passes(training_range):
    bed = np.pad(head(20), ((20, 20), (10, 12), (5, 13)))  # more air
    scans = [rician(head(seed), 0.012, seed) for seed in range(20, 26)] + [rician(bed, 0.012)]
    assert told(training_range, *map(prepared, scans)) == []


def doubled(volume, axes):
    """Zero-filled to twice the voxels along these axes, and its affine."""
    factors = np.array([1 + (axis in axes) for axis in range(3)])
    return abs(zero_filled(volume, factors * volume.shape)), AFFINE @ np.diag([*1 / factors, 1.0])


def hounsfield(volume):
    """CT: air, a skull, and soft tissues that differ by some 10 HU."""
    hu = np.where(volume > 0.1, 40 + 20 * volume, -1000.0) + 900 * ((volume > 0.1) & (volume < 0.35))
    return hu + 8 * np.random.default_rng(0).normal(size=hu.shape)


SCAN, NOISY = (rician(head(21), sigma) for sigma in (0.012, 0.06))
RANDOM, EVERY = np.random.default_rng(1), np.arange(SCAN.size).reshape(SHAPE)
# What no weights are for, and statistics that say so.
NO_SCANS = {
    "ramp": (np.linspace(0, 1000, SHAPE[0])[:, None, None] * np.ones(SHAPE), {"slice_detail"}),
    "noisy ramp": (EVERY / EVERY.size + 0.02 * RANDOM.normal(size=SHAPE), {"in_plane_detail"}),
    "noise alone": (rician(np.zeros(SHAPE), 1), {"noise", "in_plane_detail"}),
    "noise on an offset": (10 + RANDOM.normal(size=SHAPE), {"in_plane_detail"}),
    "few voxels": (SCAN[28:52, 32:56, 24:48], {"tissue_voxels"}),
    "small phantom": (rician(phantom(3, (40, 44, 36)), 0.012), {"tissue_voxels"}),
    "inverted": (SCAN.max() - SCAN, {"tissue_spread"}),
    "mask": ((SCAN > 0.3).astype(np.float32), {"tissue_spread", "noise"}),
    "CT in a window": (hounsfield(head(21)).clip(0, 80), {"noise"}),
    "CT angiogram": (np.where(SCAN > 0.98, SCAN - 0.98, 0) + (EVERY % 9999 == 0), {"tissue_share"}),
    "contrast agent": (np.where(EVERY % 500, SCAN, 5), {"tissue_median"}),
}
KINDS = {
    "small voxels": (SCAN, AFFINE @ np.diag([0.15, 0.15, 0.15, 1]), {"in_plane_spacing", "slice_spacing"}),
    "large voxels": (SCAN, AFFINE @ np.diag([2, 2, 2, 1]), {"in_plane_spacing", "slice_spacing"}),
    "thick slices": (SCAN[..., ::3], AFFINE @ np.diag([1, 1, 3, 1]), {"slice_spacing"}),
    "noise": (NOISY, AFFINE, {"noise"}),
    "zero-filled in plane": (*doubled(SCAN, (0, 1)), {"in_plane_detail"}),
    "zero-filled across": (*doubled(SCAN, (2,)), {"slice_detail"}),
    "labels": (np.digitize(head(21), [0.3, 0.6, 0.9]).astype(np.float32), AFFINE, {"noise"}),
    **{kind: (volume, AFFINE, names) for kind, (volume, names) in NO_SCANS.items()},
}
LABELS = {
    "in_plane_spacing": "spacing in plane",
    "slice_spacing": "spacing across slabs or slices",
    "noise": "noise",
    "in_plane_detail": "detail in plane",
    "slice_detail": "detail across slabs or slices",
    "tissue_median": "brightness of tissue",
    "tissue_spread": "contrast of tissue",
    "tissue_share": "share of tissue",
    "tissue_voxels": "voxels of tissue",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_training_did_not_see_is_told(training_range, kind):
    volume, affine, expected = KINDS[kind]
    (text,) = told(training_range, prepared(volume, affine, f"/d/{kind}.nii.gz"))
    assert text.startswith(f"/d/{kind}.nii.gz: unlike")
    found = statistics(volume, affine)
    for name in expected:
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {LABELS[name]}: ")]
        low, high = training_range.get(name, (0, 0))
        assert f"trained on {low:.3g} to {high:.3g}" in line or ", scans have at " in line
        assert f"{found[name][0]:.3g}" in line


WHOLE = rician(head(21), 0.01)
CUT, SMALL = WHOLE[12:68, 12:76, 14:58], WHOLE[20:60, 20:68, 20:52]  # no air around them


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("bundles/*/models/model*.json")), ids=lambda path: "/".join(path.parts[-3::2])
)
def test_shipped_weights_take_any_body_and_nothing_but_scans(path):
    """Fields of view that cut through tissue, a bright background, zero-filling of a plane that stays as it is."""
    overlay = json.loads(path.read_text())
    ranges, scale = overlay["training_range"], overlay["scale"]
    spacing = [np.prod(ranges.get(f"{name}_spacing", (1, 1))) ** 0.5 for name in ("in_plane", "in_plane", "slice")]
    bodies = [WHOLE, CUT, SMALL, WHOLE / 3 + 0.3]
    if scale[:2] == [1, 1]:
        bodies += [
            abs(zero_filled(body, (*(round(1.8 * n) for n in body.shape[:2]), body.shape[2]))) for body in bodies
        ]
    for body in bodies:
        assert told(ranges, prepared(body, np.diag([*spacing, 1])), scale=scale) == []
    for kind, (volume, _) in NO_SCANS.items():
        assert told(ranges, prepared(volume, np.diag([*spacing, 1])), scale=scale), kind


THICK, PLANE, CUBE = (1, 1, 4), (2, 2, 1), (2, 2, 2)
# A statistic, its value, its range, the scale of the weights, and whether it is told: of real scans, and of volumes
# whose gain was measured.
GRADES = [
    ("in_plane_detail", 0.07, (0.165, 9), THICK, False),  # interpolated in plane by the scanner
    ("in_plane_detail", 0.07, (0.165, 9), PLANE, True),
    ("in_plane_detail", 0.07, (0.165, 9), CUBE, True),
    ("slice_detail", 0.1, (0.24, 0.63), PLANE, False),
    ("slice_detail", 0.1, (0.24, 0.63), THICK, True),
    ("slice_detail", 0.217, (0.228, 9), CUBE, False),
    ("slice_detail", 0.69, (0.286, 0.625), THICK, False),
    ("slice_detail", 0.72, (0.24, 0.63), THICK, True),  # gaps between slices
    ("in_plane_detail", 0.855, (0.24, 0.75), THICK, False),  # mouse
    ("in_plane_detail", 0.98, (0.24, 0.75), THICK, True),  # sharpened
    ("noise", 0.0017, (0.0036, 0.047), CUBE, False),
    ("noise", 0.001, (0.0036, 0.047), CUBE, True),  # denoised
    ("noise", 0.031, (0.0036, 0.0277), CUBE, False),  # neck
    ("noise", 0.06, (0.0036, 0.047), CUBE, True),
    ("slice_spacing", 0.3, (0.9, 3.5), CUBE, False),  # mouse
    ("slice_spacing", 0.2, (0.9, 3.5), CUBE, True),
    ("slice_spacing", 7, (2.5, 6.4), THICK, False),
    ("slice_spacing", 10, (2.5, 6.4), THICK, True),
]


@pytest.mark.parametrize(("name", "value", "limits", "scale", "is_told"), GRADES)
def test_what_is_near_or_of_no_effect_is_not_told(name, value, limits, scale, is_told):
    found = statistics(SCAN)[name]
    factor = (min(found) if value < limits[0] else max(found)) / value
    assert len(told({name: [limit * factor for limit in limits]}, prepared(SCAN), scale=scale)) == is_told


def test_noise_that_an_interpolation_in_plane_took_is_no_alarm(training_range):
    volume, affine = doubled(SCAN, (0, 1))
    ranges = {name: training_range[name] for name in ("in_plane_detail", "slice_detail")}
    ranges["noise"] = [9 * statistics(volume, affine)["noise"][0], 9]
    assert told(ranges, prepared(volume, affine), scale=(1, 1, 4)) == []
    assert "  noise: " in told(ranges, prepared(volume, affine))[0]


def test_every_bad_scan_is_told_even_twice_of_what_is_named(training_range):
    scans = [prepared(rician(head(21), 0.034), file=f"/d/{name}.nii.gz") for name in "aba"]
    said = told({"noise": training_range["noise"]}, *scans)
    assert [text[:11] for text in said] == ["/d/a.nii.gz", "/d/b.nii.gz", "/d/a.nii.gz"]
    assert told(training_range, *scans, filters="ignore") == []
    # Earlier weights have ranges of what takes no gain.
    earlier = {name: [7, 8] for name in ("air", "tissue_median", "tissue_spread", "tissue_volume")}
    for nothing in (None, {}, earlier, earlier | {"slice_spacing": [2.1, 2.2]}):
        assert told(nothing, scans[0]) == []
    (message,) = told(earlier | {"noise": [0, 0.01]}, scans[0])
    assert "noise: " in message and "air: " not in message
    assert CheckTrainingRanged("image", {"noise": [0, 1]}, allow_missing_keys=True)({"hr": 1}) == {"hr": 1}


@pytest.mark.parametrize(
    ("limits", "said"),
    [((2.0, 9), "2.00 times smaller"), ((0.1, 0.8), "1.25 times larger"), ((1.04, 9), ""), ((5, 9), "slabs or slices")],
)
def test_voxels_that_are_near_the_training_range_get_a_notice_and_far_ones_a_warning(limits, said):
    scan = prepared(SCAN, np.diag([0.5, 0.5, 1.0, 1]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = CheckTrainingRanged("image", {"slice_spacing": limits}, (1, 1, 1))({"image": scan})
    assert (said in done["outside_training"]) and bool(said) == bool(done["outside_training"]) == len(caught)
    assert [each.category for each in caught] == [Notice if "times" in said else UserWarning] * bool(said)


@pytest.mark.parametrize(
    ("mm", "scale", "is_told"), [(0.5, (1, 1, 4), True), (1.8, (1, 1, 4), False), (0.5, (2, 2, 1), False)]
)
def test_gaps_that_the_protocol_tells_are_told(mm, scale, is_told):
    scan = prepared(SCAN)
    scan.meta["SliceThickness"] = mm
    said = told({"noise": [0, 9]}, scan, scale=scale)
    assert [f"slices: {mm / SPACING[2]:.3g}, " in text and "gaps" in text for text in said] == [True] * is_told


def test_refused():
    for pair in (0.1, [1, 0], [0, 1, 2], [0, "1"], [0, float("nan")]):
        refused(lambda p=pair: CheckTrainingRanged("image", {"noise": p}), ValueError, f"noise is {pair}")
    refused(lambda: CheckTrainingRanged("image", {"nois": [0, 1]}), ValueError, "'nois'", "noise")
    refused(lambda: CheckTrainingRanged("image", [0, 1]), ValueError, "training_range", [0, 1])


@pytest.mark.filterwarnings("error", "ignore:.*unlike the training:UserWarning")
@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 40, 3), (8, 9, 10), (40, 40, 4)])
def test_odd_volumes_are_no_errors(shape):
    one_voxel = np.eye(1, np.prod(shape)).reshape(shape)
    for volume in (np.random.default_rng(0).random(shape), one_voxel, np.zeros(shape), np.full(shape, 7.0)):
        scan = scan_of(volume, np.eye(4))
        found = compute_scan_statistics(scan.as_tensor(), np.eye(4))
        assert np.isnan(found["slice_detail"][0]) or shape[2] >= 8
        CheckTrainingRanged("image", {name: [-1e9, 1e9] for name in found})({"image": scan})


def test_a_range_holds_all_volumes_and_a_margin():
    found = [{"noise": [0.01], "in_plane_detail": [0.3, 0.4], "tissue_share": [0.5], "slice_detail": [np.nan]}]
    found.append({"noise": [0.02], "in_plane_detail": [np.nan, 0.5], "tissue_share": [0.2], "slice_detail": [np.nan]})
    assert widen_range(found) == {"noise": [0.008, 0.025], "in_plane_detail": [0.24, 0.625]}
