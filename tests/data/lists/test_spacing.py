"""What headers say of the grids of a datalist's scans, in the order of the axes that networks read."""

import nibabel as nib
import numpy as np
import pytest

from common.data import check_scale, identify_slice_axis, measure_in_plane_spacing, measure_thin_slice_spacing
from tests.refused import refused

UNREADABLE = dict.fromkeys(("hr", "lr"), __file__)  # no image


@pytest.fixture
def scan(tmp_path):
    def write(name, spacing=(1.0, 1.0, 1.0), codes="RAS", key="lr"):
        affine = np.diag([0.0, 0, 0, 1])
        for column, (axis, sign) in enumerate(nib.orientations.axcodes2ornt(codes)):
            affine[int(axis), column] = sign * spacing[int(axis)]
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine), tmp_path / f"{name}.nii")
        return {key: str(tmp_path / f"{name}.nii")}

    return write


def test_lr_voxels_of_the_scale_are_accepted(scan):
    for spacing, codes, factors, slice_axis, hr_spacing in (
        ((1.5, 1.3, 1.4), "LPI", (2, 2, 2), "SI", (0.7, 0.7, 0.7)),
        ((1.4, 1.4, 0.7), "SRA", (2, 2, 1), "SI", (0.7, 0.7, 0.7)),  # stored in another order
        ((0.7, 1.4, 1.4), "PIR", (2, 2, 1), "LR", (0.7, 0.7, 0.7)),  # slabs across the axis of factor 1
        ((1.4, 1.4, 3.0), "RSA", (2, 2, 2), "SI", (0.7, 0.7, 1.5)),  # axis by axis
    ):
        check_scale([scan("hr", hr_spacing, key="hr")] * 3, [scan("low", spacing, codes)], factors, slice_axis)
    # What has no LR or cannot be read is left to others.
    hr, low = scan("hr", key="hr"), scan("low", (9, 9, 9))
    for source, target in (([hr], [hr]), ([], [low]), ([hr, {"hr": "missing.nii"}], [UNREADABLE])):
        check_scale(source, target, (2, 2, 2), "SI")


def test_lr_voxels_that_contradict_the_scale_are_refused(scan):
    hr = [scan("hr", (0.7, 0.7, 0.7), key="hr")] * 3
    for spacing, factors, axis in (
        ((1.4, 1.4, 0.7), (2, 2, 2), "SI"),
        ((1.4, 1.4, 1.4), (2, 2, 1), "SI"),
        ((0.7, 1.4, 1.4), (2, 2, 1), "SI"),
        ((1.4, 1.4, 0.7), (2, 2, 1), "AP"),
        ((1.75, 1.4, 1.4), (2, 2, 2), "SI"),
    ):
        call = hr, [scan("low", spacing)], factors, axis
        words = list(factors), [round(0.7 * f, 3) for f in factors], "low.nii: [", "Set scale"
        assert "hr.nii" not in refused(lambda call=call: check_scale(*call), ValueError, *words)


def test_in_plane_spacing_is_the_median_in_the_order_of_the_slabs_axes(scan):
    stored = [(0.7, "RAS"), (0.71, "SRA"), (0.72, "PIL")]
    entries = [scan(i, (left, 0.9, 3.0 + i), codes, "hr") for i, (left, codes) in enumerate(stored)]
    assert measure_in_plane_spacing([*entries, UNREADABLE], "SI") == pytest.approx([0.71, 0.9])
    assert measure_in_plane_spacing([UNREADABLE], "SI") == [1.0, 1.0]
    words = "[0.71, 4.0] mm", "5 %", "0.nii: [0.7, 3.0] mm", "2.nii"
    refused(lambda: measure_in_plane_spacing(entries, "AP"), ValueError, *words)
    off = [*entries, scan("other", (0.71, 1.0, 3.0), key="hr")]
    assert "0.nii" not in refused(lambda: measure_in_plane_spacing(off, "SI"), ValueError, "other.nii: [0.71, 1.0] mm")


def test_thin_slice_spacing_is_the_median_grid_that_thin_slices_have(scan):
    """Thick slices divided by the scale, thin ones as they are, stored in any order; slices last."""
    stored = [((0.8, 0.9, 4.0), "RAS"), ((0.81, 0.9, 4.4), "SRA"), ((0.82, 0.9, 4.2), "PIL")]
    lr = [scan(i, spacing, codes) for i, (spacing, codes) in enumerate(stored)]
    thin, bad = scan("thin", (0.8, 0.9, 1.2), key="hr"), {"lr": UNREADABLE["lr"]}
    for entries, axis, expected in (
        (lr, "SI", [0.81, 0.9, 1.05]),
        ([lr[0], thin, bad], "SI", [0.8, 0.9, 1.1]),
        ([lr[0] | thin], "SI", [0.8, 0.9, 1.0]),  # where both are known the thick slices count
        ([thin], "LR", [0.9, 1.2, 0.8]),
        ([bad], "SI", [1.0, 1.0, 1.0]),
    ):
        assert measure_thin_slice_spacing(entries, axis, 4) == pytest.approx(expected)
    scans = [scan(*s) for s in (("a", (1, 1, 4)), ("b", (1, 1, 4.4)), ("c", (1, 1, 6)), ("d", (0.7, 1, 4)))]
    words = "by 4", "[1.0, 1.0, 1.05] mm", "20 %", "c.nii: [1.0, 1.0, 1.5] mm", "d.nii: [0.7, 1.0, 1.0] mm"
    message = refused(lambda: measure_thin_slice_spacing(scans, "SI", 4), ValueError, *words)
    assert "a.nii" not in message and "b.nii" not in message


def test_the_slice_axis_is_the_one_that_all_scans_show(scan):
    coronal = [scan(i, (0.8, 4.0, 0.9), codes) for i, codes in enumerate(("RAS", "SRA", "PIL"))]
    cube, sagittal = scan("cube", key="hr"), scan("sagittal", (4.0, 0.8, 0.8), key="hr")
    assert identify_slice_axis([*coronal, cube, UNREADABLE], "auto") == "AP"
    assert identify_slice_axis([coronal[0] | sagittal], "auto") == "AP", "the LR scan counts"
    assert identify_slice_axis([sagittal], "auto") == "LR"
    assert identify_slice_axis([UNREADABLE], "auto") == identify_slice_axis([], "auto") == "SI"
    mixed = [*coronal, sagittal, cube]
    assert identify_slice_axis(mixed, "SI") == "SI"
    words = "0.nii: AP\n", "2.nii: AP\n", "sagittal.nii: LR\n", "--slice_axis"
    refused(lambda: identify_slice_axis(mixed, "auto"), ValueError, *words)
    refused(lambda: identify_slice_axis([cube, UNREADABLE], "auto"), ValueError, "cube.nii: ", "--slice_axis SI")
