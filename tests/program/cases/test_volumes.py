import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from common.program.cases.volumes import count_volumes, join_results, split_volumes

from ...refused import refused

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0.5, -20], [0, -0.5, 3, 10], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(-300, 3000, (6, 5, 4, 3)).astype(np.int16)
LISTS = ("list domain domain domain", "domain domain domain list", "domain list domain domain")


def save(path, form):
    if form == "nrrd":
        image = sitk.GetImageFromArray(VOXELS.T, isVector=False)
        image.SetSpacing((2, 2, 3, 1))
        return sitk.WriteImage(image, str(path))
    if form in LISTS:
        at = form.split().index("list")
        voxels, axes = np.moveaxis(VOXELS, 3, at), ["(2,0,0)", "(0,2,0)", "(0,0,3)"]
        axes.insert(at, "none")
        head = ["NRRD0005", "type: short", "dimension: 4", "space: left-posterior-superior", "encoding: raw"]
        head += ["endian: little", f"sizes: {' '.join(map(str, voxels.shape))}", f"space directions: {' '.join(axes)}"]
        return path.write_bytes("\n".join([*head, f"kinds: {form}", "", ""]).encode() + voxels.tobytes(order="F"))
    kind = {"mgz": nib.MGHImage, "nii": nib.Nifti2Image}.get(form, nib.Nifti1Image)
    image = kind(VOXELS[..., None] if form == "5-D" else VOXELS, AFFINE)
    if form == "mgz":
        image.header.set_zooms((*image.header.get_zooms()[:3], 2500))
    else:
        image.header["pixdim"][4] = 2.5
        image.header.set_xyzt_units("mm", "sec")
    if form == "scaled":
        image.header.set_slope_inter(0.5, 7)
    return nib.save(image, path)


@pytest.mark.parametrize("form", ["nii.gz", "nii", "scaled", "5-D", "mgz", "nrrd", *LISTS])
def test_volumes_are_split_and_joined_without_a_change(form, tmp_path):
    """Voxels, their type, their places and the time step are those of the 4-D image."""
    is_nrrd = form in ("nrrd", *LISTS)
    path = tmp_path / f"scan.{'nrrd' if is_nrrd else form if form in ('nii', 'mgz') else 'nii.gz'}"
    save(path, form)
    assert count_volumes(path) == 3
    files = split_volumes(path, tmp_path / "split")
    values = VOXELS * 0.5 + 7 if form == "scaled" else VOXELS
    (tmp_path / "results").mkdir()
    assert [*files.values()] == [values[..., i].max() for i in range(3)]
    for i, file in enumerate(map(Path, files)):
        volume = nib.load(file)
        np.testing.assert_array_equal(np.asanyarray(volume.dataobj), values[..., i])
        assert volume.get_data_dtype() == np.int16
        file.rename(tmp_path / "results" / f"{i}_sr.nii.gz")
    joined = nib.load(join_results(tmp_path / "results", ["0", "1", "2"], path, tmp_path / "out", "scan"))
    np.testing.assert_array_equal(np.asanyarray(joined.dataobj), values)
    affine = np.diag([-2.0, -2, 3, 1]) if is_nrrd else AFFINE
    np.testing.assert_allclose(joined.affine, affine, atol=1e-5)
    assert type(joined) is (nib.Nifti2Image if form == "nii" else nib.Nifti1Image)
    if not is_nrrd:
        step = (2500, "msec") if form == "mgz" else (2.5, "sec")
        assert (joined.header["pixdim"][4], joined.header.get_xyzt_units()[1]) == step
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["scan_sr.nii.gz"]


@pytest.mark.parametrize("values", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("directions", [2, 3, 4])
def test_only_gradients_that_fit_the_volumes_are_kept(tmp_path, values, directions):
    """In rows or columns; what does not fit is said, and none is left of an earlier result."""
    save(tmp_path / "dwi.nii", "nii")
    tables = {"bval": np.arange(values)[:, None] * 1000, "bvec": np.ones((directions, 3))}
    for end, table in tables.items():
        np.savetxt(tmp_path / f"dwi.{end}", table if values % 2 else table.T)
        (tmp_path / f"dwi_sr.{end}").write_text("0 0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, file in enumerate(map(Path, split_volumes(tmp_path / "dwi.nii", tmp_path / "split"))):
            file.rename(tmp_path / f"{i}_sr.nii.gz")
    said = [str(each.message) for each in caught]
    join_results(tmp_path, ["0", "1", "2"], tmp_path / "dwi.nii", tmp_path, "dwi")
    for end, table in tables.items():
        kept, fits = tmp_path / f"dwi_sr.{end}", len(table) == 3
        assert fits != any(f"dwi.{end}: " in text for text in said)
        assert kept.read_text() == (tmp_path / f"dwi.{end}").read_text() if fits else not kept.exists()


def test_volumes_that_are_scaled_differently_are_joined_as_floats(tmp_path):
    save(tmp_path / "scan.nii", "nii")
    for i, slope in enumerate((0.5, 0.25)):
        image = nib.Nifti1Image(VOXELS[..., i], AFFINE, dtype=np.int16)
        image.header.set_slope_inter(slope, 0)
        nib.save(image, tmp_path / f"{i}_sr.nii.gz")
    joined = nib.load(join_results(tmp_path, ["0", "1"], tmp_path / "scan.nii", tmp_path / "out", "scan"))
    assert joined.get_data_dtype() == np.float32
    np.testing.assert_array_equal(joined.get_fdata(), VOXELS[..., :2] * [0.5, 0.25])


def test_vectors_are_no_scan(tmp_path):
    """Such as the eigenvectors of a tensor, which are 4-D images of three volumes."""
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(-1, 1, (4, 4, 4, 3)), AFFINE), tmp_path / "dti_V1.nii")
    refused(lambda: split_volumes(tmp_path / "dti_V1.nii", tmp_path), ValueError, "dti_V1.nii", "vectors", "-0.9")


def test_what_is_no_series_of_volumes_counts_as_one(tmp_path):
    for name, shape in {"3d": (4, 4, 4), "one": (4, 4, 4, 1), "field": (4, 4, 4, 1, 3)}.items():
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), AFFINE), tmp_path / f"{name}.nii")
        assert count_volumes(tmp_path / f"{name}.nii") == 1
    (tmp_path / "no.nii").write_bytes(b"no image")
    assert count_volumes(tmp_path / "no.nii") == 1
