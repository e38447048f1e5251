"""``python -m common degrade``: LR at its place, made by the physics of a scanner, and its JSON."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from nibabel.affines import from_matvec
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from common.__main__ import main
from common.commands.super_resolve import super_resolve
from common.degradations import read_profile_width
from common.io.read import read_volume

from ..bundles.runs import phantom, save
from ..clients import dicom
from ..refused import has, refused

TURNED = Rotation.from_euler("zxy", [17, -12, 8], degrees=True).as_matrix()
# Grids by the names of the files: their shape, affine and stored axes. The last is of sagittal slices.
GRIDS = {
    "oblique": ((28, 24, 32), from_matvec(TURNED * [0.9, 0.9, 0.9], [-91.3, 107.7, -58.1]), ""),
    "flipped": ((25, 29, 33), from_matvec(np.diag([1.0, 1.0, 1.0]), [-61.25, 43.5, -12.75]), "LIP"),
    "anisotropic": ((33, 27, 26), from_matvec(TURNED * [2.8, 0.6, 0.7], [33.3, -77.1, 5.9]), ""),
}


def make_hr(folder, dtype=np.float32):
    for seed, (name, (shape, affine, axes)) in enumerate(GRIDS.items()):
        save(folder / f"{name}.nii.gz", phantom(seed, shape), affine, dtype, axes)
    return folder


def read(path):
    record = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    return nib.load(path), record


def take_whole(hr, record):
    """HR's voxels that LR was made of, and their affine."""
    ends = np.array(record["HRVoxels"])
    return hr.get_fdata()[tuple(slice(*each) for each in ends)], hr.affine @ from_matvec(np.eye(3), ends[:, 0])


@pytest.mark.parametrize("scale", ["2x2x2", "2x2x1", "[1,1,4]"])
def test_super_resolved_it_lies_on_the_grid_of_hr(tmp_path, scale):
    hr = make_hr(tmp_path / "hr", np.int16)
    main(["degrade", str(hr), str(tmp_path / "lr"), "--scale", scale])
    super_resolve(
        str(tmp_path / "lr"), str(tmp_path / "sr"), scale=scale, data_consistency_iterations=1, adapt_iterations=0
    )
    for name, (shape, _, _) in GRIDS.items():
        image = nib.load(hr / f"{name}.nii.gz")
        lr, record = read(tmp_path / "lr" / f"{name}_lr.nii.gz")
        sr = nib.load(tmp_path / "sr" / f"{name}_lr_sr.nii.gz")
        whole, affine = take_whole(image, record)
        assert sr.shape == whole.shape and lr.get_data_dtype() == np.int16
        np.testing.assert_allclose(sr.affine, affine, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_less(np.subtract(image.shape, whole.shape), 4)
        assert np.corrcoef(sr.get_fdata().ravel(), whole.ravel())[0, 1] > 0.97
