"""Where a header says that voxels lie, before and after a scan is super-resolved; HEADERS sets how many are drawn."""

import itertools
import os

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.quaternions import mat2quat
from scipy.spatial.transform import Rotation

from common.degradations import GaussianProfile, KSpaceTruncation
from common.io.images import open_image
from tests import malformed
from tests.transforms.grids import ORIENTATIONS, affine_of, super_resolve

HEADERS = int(os.environ.get("HEADERS", "100"))
SHAPE = (4, 5, 6)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
CODES = list(itertools.product(range(5), repeat=2))


def drawn(index, folder):
    """A scan with a drawn header: NIfTI-1 of both byte orders, NIfTI-2, Analyze or MGH."""
    rng = np.random.default_rng(index)
    # Each orientation, then near half a turn, where quaternions are least precise.
    stored = affine_of(ORIENTATIONS[index % len(ORIENTATIONS)], (1, 1, 1))[:3, :3]
    tilt = rng.choice([0, 1e-3, 20, 45])
    rotation = Rotation.from_rotvec(np.deg2rad(rng.normal(scale=tilt, size=3))).as_matrix() @ stored
    sizes, offset = rng.uniform(0.4, 3, 3), rng.uniform(-1000, 1000, 3)
    shear = np.eye(3) + np.triu(rng.normal(scale=rng.choice([0, 0.1]), size=(3, 3)), 1)
    matrix = from_matvec(rotation * sizes @ shear * rng.choice([1, 1.001, 1.2]), offset)
    kind = rng.choice(["nifti", "big-endian", "nifti2", "analyze", "mgh"], p=[0.5, 0.2, 0.2, 0.05, 0.05])
    path = folder / f"{index}.{dict(analyze='img', mgh='mgz').get(kind, 'nii')}"
    if kind == "analyze":
        image = nib.AnalyzeImage(VOXELS, None)
        image.header["pixdim"][1:4] = sizes
    elif kind == "mgh":
        image = nib.MGHImage(VOXELS.astype(np.int32), matrix)
    else:
        header = nib.Nifti2Header() if kind == "nifti2" else nib.Nifti1Header(endianness="><"[kind == "nifti"])
        other = Rotation.random(random_state=int(rng.integers(1e6))).as_matrix(), rng.uniform(-1000, 1000, 3)
        # Past all checks, and in each tenth file no sform or no qform.
        header["srow_x"], header["srow_y"], header["srow_z"] = matrix[:3] * (rng.random() >= 0.1)
        rotation, offset = (rotation, offset) if rng.random() < 0.7 else other
        qfac = np.sign(np.linalg.det(rotation))
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = mat2quat(rotation @ np.diag([1, 1, qfac]))[1:]
        header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = offset
        header["pixdim"][:4] = [qfac, *sizes]
        header["sform_code"], header["qform_code"] = CODES[index % len(CODES)]
        if rng.random() < 0.1:
            header["quatern_b"] = 2
        image = (nib.Nifti2Image if kind == "nifti2" else nib.Nifti1Image)(VOXELS, None, header)
        image.header.set_data_dtype(np.int16)
    nib.save(image, path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(4))
def test_voxels_stay_where_the_header_has_them(tmp_path, part):
    """Each form of the result puts voxels where those they are made from lie; or the file is refused by name."""
    refused, indices = 0, range(part, HEADERS, 4)
    corners = np.array(list(itertools.product((0, 255), repeat=3)))  # of a larger volume of this header
    for index in indices:
        path = drawn(index, tmp_path)
        degradation = (GaussianProfile, KSpaceTruncation)[index % 2]((2, 2, 2))
        try:
            result = super_resolve(path, tmp_path, degradation)
        except ValueError as error:
            assert malformed.unclear(str(error), path.name) is None
            with pytest.raises((ValueError, np.linalg.LinAlgError)):
                np.linalg.inv(nib.load(path).affine)
            refused += 1
            continue
        source = nib.load(path)
        np.testing.assert_array_equal(np.asarray(result.dataobj), VOXELS.repeat(2, 0).repeat(2, 1).repeat(2, 2))
        coded = any(int(source.header.get(code, 0)) for code in ("sform_code", "qform_code"))
        zero = coded and not source.get_sform()[0].any()  # then its qform is right, or it would be refused
        forms = [tuple(open_image(image.get_filename()).affine for image in (source, result))]
        # The first voxel of axes to the right, anterior and superior is that of the network.
        first = 0.5 + nib.io_orientation(forms[0][0])[:, 1] * (degradation.offset[0] - 0.5)
        if isinstance(source, nib.AnalyzeImage) and not coded:  # viewers see the same field of view
            assert int(result.header["sform_code"]) == int(result.header["qform_code"]) == 0
            np.testing.assert_allclose(np.diag(result.affine), np.diag(source.affine) / [2, 2, 2, 1])
        if coded:
            assert result.header["sform_code"] == (0 if zero else source.header["sform_code"])
            assert result.header["qform_code"] in (source.header["qform_code"], 0)
            forms.append((source.get_sform(), result.get_sform()))
            try:
                forms.append((source.get_qform(), result.get_qform()))
                assert result.header["qform_code"] == source.header["qform_code"]
            except ValueError:
                assert result.header["qform_code"] == 0
            sizes, of_sform = np.array(source.header.get_zooms()), voxel_sizes(source.get_sform())
            if not result.header["qform_code"] and not np.allclose(sizes, of_sform, rtol=0.01):
                sizes, forms = of_sform, forms[:2]  # a qform without a code says nothing
            np.testing.assert_allclose(result.header.get_zooms(), sizes / 2, rtol=1e-6)
        for before, after in forms:
            expected, found = apply_affine(before, corners), apply_affine(after, 2 * corners + first)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=path.name)
    assert len(indices) > 5 * refused
