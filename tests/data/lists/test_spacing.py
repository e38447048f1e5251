"""What headers say of the grids of a datalist's scans, in the order of the axes that networks read."""

import nibabel as nib
import numpy as np
import pytest

from common.data import check_scale, in_plane_spacing, slice_axis_of, thin_slice_spacing


def write(path, shape, spacing=(1.0, 1.0, 1.0), codes="RAS"):
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for column, (axis, sign) in enumerate(ornt):
        affine[int(axis), column] = sign * spacing[int(axis)]
    affine[3, 3] = 1
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def entries(tmp_path, lr_spacing, codes="RAS", hr_spacing=(0.7, 0.7, 0.7)):
    hr = [{"hr": str(write(tmp_path / f"hr{i}.nii", (4, 5, 6), hr_spacing))} for i in range(3)]
    return hr, [{"lr": str(write(tmp_path / "low.nii", (4, 5, 6), lr_spacing, codes=codes))}]


@pytest.mark.parametrize(
    ("spacing", "codes", "factors", "slice_axis"),
    [
        ((1.4, 1.4, 1.4), "RAS", (2, 2, 2), "SI"),
        ((1.5, 1.3, 1.4), "LPI", (2, 2, 2), "SI"),
        ((1.4, 1.4, 0.7), "RAS", (2, 2, 1), "SI"),
        ((1.4, 1.4, 0.7), "SRA", (2, 2, 1), "SI"),  # stored in another order
        ((0.7, 1.4, 1.4), "PIR", (2, 2, 1), "LR"),  # slabs across the axis of factor 1
    ],
)
def test_lr_voxels_of_the_scale_are_accepted(tmp_path, spacing, codes, factors, slice_axis):
    check_scale(*entries(tmp_path, spacing, codes), factors, slice_axis)


def test_the_hr_scans_spacing_counts_axis_by_axis(tmp_path):
    check_scale(*entries(tmp_path, (1.4, 1.4, 3.0), "RSA", (0.7, 0.7, 1.5)), (2, 2, 2), "SI")
    with pytest.raises(ValueError, match=r"about \[1\.4, 1\.4, 1\.5\] mm"):
        check_scale(*entries(tmp_path, (1.4, 1.4, 3.0), "RSA", (0.7, 0.7, 1.5)), (2, 2, 1), "SI")


@pytest.mark.parametrize(
    ("spacing", "factors", "slice_axis"),
    [
        ((1.4, 1.4, 0.7), (2, 2, 2), "SI"),
        ((1.4, 1.4, 1.4), (2, 2, 1), "SI"),
        ((0.7, 1.4, 1.4), (2, 2, 1), "SI"),
        ((1.4, 1.4, 0.7), (2, 2, 1), "AP"),
        ((1.75, 1.4, 1.4), (2, 2, 2), "SI"),
        ((0.7, 0.7, 0.7), (2, 2, 2), "SI"),
    ],
)
def test_lr_voxels_that_contradict_the_scale_are_refused(tmp_path, spacing, factors, slice_axis):
    with pytest.raises(ValueError) as error:
        check_scale(*entries(tmp_path, spacing), factors, slice_axis)
    message = str(error.value)
    assert f"scale factor {list(factors)}" in message and "low.nii: [" in message and "Set scale" in message
    assert str([round(0.7 * f, 3) for f in factors]) in message and "hr0" not in message


def test_what_has_no_lr_or_cannot_be_read_is_left_to_others(tmp_path):
    hr, lr = entries(tmp_path, (9, 9, 9))
    check_scale(hr, hr, (2, 2, 2), "SI")
    check_scale([], lr, (2, 2, 2), "SI")
    (tmp_path / "low.nii").write_text("no image")
    check_scale([*hr, {"hr": "missing.nii"}], lr, (2, 2, 2), "SI")


def test_in_plane_spacing_is_the_median_in_the_order_of_the_slabs_axes(tmp_path):
    """Stored in any order; slices run along the axis that is asked for, whatever their distance."""
    for i, (left, codes) in enumerate([(0.7, "RAS"), (0.71, "SRA"), (0.72, "PIL")]):
        write(tmp_path / f"{i}.nii", (4, 5, 6), (left, 0.9, 3.0 + i), codes=codes)
    entries = [{"hr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert in_plane_spacing(entries, "SI") == pytest.approx([0.71, 0.9])
    (tmp_path / "bad.nii").write_text("no image")
    unreadable = {"hr": str(tmp_path / "bad.nii")}
    assert in_plane_spacing([*entries, unreadable], "SI") == pytest.approx([0.71, 0.9])
    assert in_plane_spacing([unreadable], "SI") == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"(?s)\[0\.71, 4\.0\] mm.*to 5 %.*0\.nii: \[0\.7, 3\.0\] mm.*2\.nii"):
        in_plane_spacing(entries, "AP")
    write(tmp_path / "other.nii", (4, 5, 6), (0.71, 1.0, 3.0))
    with pytest.raises(ValueError) as error:
        in_plane_spacing([*entries, {"hr": str(tmp_path / "other.nii")}], "SI")
    assert "other.nii: [0.71, 1.0] mm" in str(error.value) and "0.nii" not in str(error.value)


def test_thin_slice_spacing_is_the_median_grid_that_thin_slices_have(tmp_path):
    """Thick slices divided by the scale, thin ones as they are, stored in any order; slices last."""
    spacings = [(0.8, 0.9, 4.0), (0.81, 0.9, 4.4), (0.82, 0.9, 4.2)]
    for i, (spacing, codes) in enumerate(zip(spacings, ("RAS", "SRA", "PIL"), strict=True)):
        write(tmp_path / f"{i}.nii", (4, 5, 6), spacing, codes=codes)
    lr = [{"lr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert thin_slice_spacing(lr, "SI", 4) == pytest.approx([0.81, 0.9, 1.05])
    write(tmp_path / "thin.nii", (4, 5, 6), (0.8, 0.9, 1.2))
    thin, unreadable = {"hr": str(tmp_path / "thin.nii")}, {"lr": str(tmp_path / "bad.nii")}
    (tmp_path / "bad.nii").write_text("no image")
    assert thin_slice_spacing([lr[0], thin, unreadable], "SI", 4) == pytest.approx([0.8, 0.9, 1.1])
    # Where both are known the thick slices count.
    assert thin_slice_spacing([lr[0] | thin], "SI", 4) == pytest.approx([0.8, 0.9, 1.0])
    assert thin_slice_spacing([thin], "LR", 4) == pytest.approx([0.9, 1.2, 0.8])
    assert thin_slice_spacing([unreadable], "SI", 4) == [1.0, 1.0, 1.0]


def test_a_grid_that_is_off_the_others_is_refused(tmp_path):
    for name, spacing in (("a", (1, 1, 4)), ("b", (1, 1, 4.4)), ("c", (1, 1, 6)), ("d", (0.7, 1, 4))):
        write(tmp_path / f"{name}.nii", (4, 5, 6), spacing)
    entries = [{"lr": str(tmp_path / f"{name}.nii")} for name in "aabcd"]
    with pytest.raises(ValueError, match=r"by 4 across slices .* \[1\.0, 1\.0, 1\.05\] mm, .* to 20 %") as error:
        thin_slice_spacing(entries, "SI", 4)
    message = str(error.value)
    assert "c.nii: [1.0, 1.0, 1.5] mm" in message and "d.nii: [0.7, 1.0, 1.0] mm" in message
    assert "a.nii" not in message and "b.nii" not in message
    assert thin_slice_spacing(entries[:3], "SI", 4) == pytest.approx([1.0, 1.0, 1.05])


def test_the_slice_axis_is_the_one_that_all_scans_show(tmp_path):
    for i, codes in enumerate(("RAS", "SRA", "PIL")):
        write(tmp_path / f"{i}.nii", (4, 5, 6), (0.8, 4.0, 0.9), codes=codes)
    write(tmp_path / "cube.nii", (4, 5, 6))
    write(tmp_path / "sagittal.nii", (4, 5, 6), (4.0, 0.8, 0.8))
    (tmp_path / "bad.nii").write_text("no image")
    cube, sagittal, bad = ({"hr": str(tmp_path / f"{name}.nii")} for name in ("cube", "sagittal", "bad"))
    coronal = [{"lr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert slice_axis_of([*coronal, cube, bad], "auto") == "AP"
    assert slice_axis_of([coronal[0] | sagittal], "auto") == "AP", "the LR scan counts"
    assert slice_axis_of([sagittal], "auto") == "LR"
    assert slice_axis_of([bad], "auto") == slice_axis_of([], "auto") == "SI"
    assert slice_axis_of([*coronal, sagittal, cube], "SI") == "SI"
    with pytest.raises(
        ValueError, match=r"(?s)same axis .*0\.nii: AP\n.*2\.nii: AP\n.*sagittal\.nii: LR\n.*--slice_axis"
    ):
        slice_axis_of([*coronal, sagittal, cube], "auto")
    with pytest.raises(ValueError, match=r"(?s)no scan shows it:.*cube\.nii: the spacing .*--slice_axis SI"):
        slice_axis_of([cube, bad], "auto")
