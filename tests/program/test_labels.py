"""Label maps: brought to a finer grid and back, wherever the grids lie in the world."""

import warnings

import nibabel as nib
import numpy as np
import pytest

from common.degradations import GaussianProfile, KSpaceTruncation
from common.geometry.labels import resample_labels
from common.program.commands.label import transfer_labels
from common.program.labels import read_labels
from tests.bundles import runs
from tests.refused import refused
from tests.transforms.grids import affine_of, index_of, stored_as, world_of

SIZE = (10, 12, 9)
RNG = np.random.default_rng(0)
NOISE = RNG.choice([-7, 0, 1, 2, 300], SIZE).astype(np.int16)


def ball(affine, size, centre, radius):
    return np.linalg.norm(world_of(affine, size) - centre, axis=-1) < radius


def volume_of(labels, affine, value=1):
    return np.sum(labels == value) * abs(np.linalg.det(affine[:3, :3]))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize(
    "degradation",
    [GaussianProfile((2, 2, 2)), GaussianProfile((3, 1, 2)), GaussianProfile((1, 1, 6)), KSpaceTruncation((3, 3, 3))],
)
def test_any_labels_come_back_from_a_finer_grid(degradation, codes):
    """Labels of single voxels too, in any storage order and oblique; on their own grid they stay as they are."""
    affine = affine_of(codes, (1.5, 1.2, 3), tilt=(8, -5, 12))
    finer, size = degradation.compute_hr_affine(affine), degradation.compute_hr_size(SIZE)
    fine = resample_labels(NOISE, affine, size, np.asarray(finer))
    assert fine.dtype == NOISE.dtype and np.isin(fine, NOISE).all()
    np.testing.assert_array_equal(resample_labels(fine, np.asarray(finer), SIZE, affine), NOISE)
    np.testing.assert_array_equal(resample_labels(NOISE, affine, SIZE, affine), NOISE)


def test_a_scan_is_no_label_map(tmp_path):
    """Many values that neighbours rarely share are intensities; many labels are labels."""
    rng = np.random.default_rng(0)
    values = {
        "scan": rng.integers(0, 900, (12, 14, 16)),
        "atlas": np.kron(rng.integers(0, 99, (4, 5, 6)), np.ones((4, 4, 4))),
    }
    files = {name: tmp_path / f"{name}.nii" for name in values}
    for name, file in files.items():
        nib.save(nib.Nifti1Image(values[name].astype(np.int16), np.eye(4)), file)
    np.testing.assert_array_equal(read_labels(files["atlas"]), values["atlas"])
    refused(lambda: read_labels(files["scan"]), ValueError, "scan.nii: it has")


def test_objects_come_back_where_voxels_share_a_voxel():
    """LR voxel i lies on HR voxel 2i, so every other HR voxel belongs to two; a lesion of one voxel stays too."""
    affine = affine_of("RAS", (2, 2, 2), size=(20, 20, 20))
    given = 2 * ball(affine, (20, 20, 20), (1, 2, 0), 11).astype(np.uint8)
    given[3, 3, 3] = given[10, 10, 10] = 1
    finer = np.asarray(KSpaceTruncation((2, 2, 2)).compute_hr_affine(affine))
    fine = resample_labels(given, affine, (40, 40, 40), finer)
    np.testing.assert_array_equal(resample_labels(fine, finer, (20, 20, 20), affine), given)
    true = 2 * ball(finer, (40, 40, 40), (1, 2, 0), 11)
    assert np.mean((fine == 2) != (true == 2)) < np.mean((np.kron(given, np.ones((2, 2, 2))) == 2) != (true == 2))


@pytest.mark.parametrize(("spacing", "other"), [((1, 1, 1), (2, 2, 5)), ((2, 2, 5), (1, 1, 1)), ((1, 1, 4), (4, 1, 1))])
def test_labels_keep_volume_and_place_on_any_grid(spacing, other):
    """Two grids that are oblique to each other, coarser or finer; outside of the labels is background."""
    sizes = [tuple(int(60 / mm) for mm in each) for each in (spacing, other)]
    affine = affine_of("LAS", spacing, tilt=(4, 9, -6), size=sizes[0], middle=(2, 1, 0))
    like = affine_of("PIR", other, tilt=(-7, 3, 5), size=sizes[1], middle=(12, -3, 0))
    centre = (5.0, 2.0, -3.0)
    found = resample_labels(ball(affine, sizes[0], centre, 14).astype(np.uint8), affine, sizes[1], like)
    assert volume_of(found, like) == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.05)
    np.testing.assert_allclose(world_of(like, sizes[1])[found == 1].mean(axis=0), centre, atol=0.5)
    everywhere = resample_labels(np.ones(sizes[0], np.uint8), affine, sizes[1], like)
    middles = (np.array(sizes[0]) - 1) / 2
    beyond = (np.abs(index_of(world_of(like, sizes[1]), affine) - middles) - np.array(sizes[0]) / 2).max(axis=-1)
    clear = np.abs(beyond) > 0.01
    np.testing.assert_array_equal(everywhere[clear] > 0, beyond[clear] < 0)


def test_storage_order_does_not_move_a_boundary():
    affine = affine_of("RAS", (2, 2, 2))
    finer = np.asarray(KSpaceTruncation((2, 2, 2)).compute_hr_affine(affine))
    expected = resample_labels(NOISE, affine, (20, 24, 18), finer)
    turned = stored_as(nib.Nifti1Image(NOISE, affine), "ILP")
    found = resample_labels(np.asarray(turned.dataobj), turned.affine, (20, 24, 18), finer)
    np.testing.assert_array_equal(found, expected)


def test_command(tmp_path):
    """From a result to its scan, with the scan's header; what is no label map is refused, and nothing is written."""
    affine = affine_of("LPS", (1, 1, 4), tilt=(3, 0, 9))
    scan = runs.save(tmp_path / "scan.nii.gz", runs.phantom(0, SIZE), affine)
    finer = np.asarray(GaussianProfile((1, 1, 4)).compute_hr_affine(affine))
    thick = np.repeat(NOISE, 4, axis=2)
    files = {
        "labels": (thick, finer, np.int16),
        "floats": (thick, finer, np.float32),
        "wide": (thick.astype(np.int64) + 2**40, finer, np.int64),
        "half": (thick + 0.5, finer, np.float32),
        "several": (np.stack([thick, thick], -1), finer, np.float32),
        "away": (thick, affine_of("RAS", (1, 1, 1), middle=(500, 0, 0)), np.int16),
    }
    for name, (voxels, place, dtype) in files.items():
        nib.save(nib.Nifti1Image(voxels.astype(dtype), place, dtype=dtype), tmp_path / f"{name}.nii.gz")
    output = tmp_path / "out" / "back.nii.gz"
    for name, offset in (("labels", 0), ("floats", 0), ("wide", 2**40)):
        transfer_labels(str(tmp_path / f"{name}.nii.gz"), str(scan), str(output))
        back = nib.load(output)
        np.testing.assert_array_equal(np.asanyarray(back.dataobj) - offset, NOISE)
        np.testing.assert_allclose(back.affine, nib.load(scan).affine, atol=1e-6)
        assert back.get_data_dtype() == files[name][2] and back.header["intent_code"] == 1002
    for share in np.random.default_rng(1).integers(3, 12, 3).tolist():  # of the twelve rows of a map, from either end
        for part in (slice(share), slice(12 - share, None)):
            nib.save(nib.Nifti1Image(thick, finer).slicer[:, part], tmp_path / "part.nii.gz")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                transfer_labels(str(tmp_path / "part.nii.gz"), str(scan), str(output))
            words = f"part.nii.gz covers {share / 12:.0%} of the field of view"
            said = [words in str(each.message) for each in caught]
            assert said == [True] * (share < 11)
    (tmp_path / "seg.dcm").write_bytes(bytes(128) + b"DICM")
    output.unlink()
    for name, words in (
        ("half.nii.gz", ["4320 of 4320", "whole numbers"]),
        ("several.nii.gz", ["(10, 12, 36, 2)", "one label per voxel"]),
        ("away.nii.gz", ["field of view"]),
        ("seg.dcm", ["DICOM", "NIfTI"]),
    ):
        path = str(tmp_path / name)
        refused(lambda path=path: transfer_labels(path, str(scan), str(output)), ValueError, f"{path}: ", *words)
    refused(lambda: transfer_labels(str(scan), str(scan), str(scan)), ValueError, "over an input")
    assert not [*output.parent.iterdir()]
