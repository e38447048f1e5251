"""MONAI's Spacingd, as the bundles use it, resizes planes exactly; what it should not resize is refused before."""

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from common.transforms import CheckPlanesd

# Without align_corners=False MONAI would stretch the planes to fit, and scale_extent would move the first voxel.
RESIZE = {
    "_target_": "Spacingd",
    "keys": "lr",
    "pixdim": [2.5, 2.5, -1],
    "mode": 3,
    "padding_mode": "nearest",
    "align_corners": False,
    "allow_missing_keys": True,
}


def scan(spacing, tilt=(0, 0, 0), flips=(1, 1, 1), size=(31, 40, 9)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, flips))
    affine[:3, 3] = -123.4, 56.7, -89.1
    volume = np.random.default_rng(0).random((1, *size)).astype(np.float32)
    return MetaTensor(torch.from_numpy(volume), affine=affine, meta={"filename_or_obj": "lr.nii"})


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)], ids=str)
@pytest.mark.parametrize("tilt", [(0, 0, 0), (10, -7, 20)], ids=str)
@pytest.mark.parametrize("spacing", [(2.7, 2.7, 2.7), (2.6, 2.4, 5.0)], ids=str)
def test_planes_are_resized_with_cubic_splines_about_the_first_voxel(spacing, tilt, flips):
    lr = scan(spacing, tilt, flips)
    out = ConfigParser({"resize": RESIZE}).get_parsed_content("resize")({"lr": lr})["lr"]
    ratio = np.array([2.5 / spacing[0], 2.5 / spacing[1], 1])
    expected = lr.affine.numpy().copy()
    expected[:3, :3] *= ratio
    assert np.allclose(out.affine, expected, rtol=0, atol=1e-6), "the first voxel stays, the spacing is exact"
    index = np.stack(np.meshgrid(*map(np.arange, out.shape[1:]), indexing="ij")) * ratio[:, None, None, None]
    truth = map_coordinates(lr.numpy()[0].astype(float), index, order=3, mode="nearest")
    assert np.abs(out.numpy()[0] - truth).max() < 1e-5
    # The last voxels lie within half a voxel of where they did.
    end = (np.array(out.shape[1:]) - 1) * ratio - (np.array(lr.shape[1:]) - 1)
    assert out.shape[3] == 9 and np.abs(end).max() <= 0.5 and out.meta["filename_or_obj"] == "lr.nii"


def test_a_right_spacing_is_taken_bit_for_bit_and_a_missing_scan_is_missing():
    resize = ConfigParser({"resize": RESIZE}).get_parsed_content("resize")
    lr = scan((2.5001, 2.4999, 6), (10, -7, 20), (-1, 1, 1))
    out = resize({"lr": lr})["lr"]
    assert torch.equal(out.as_tensor(), lr.as_tensor()) and torch.equal(out.affine, lr.affine)
    assert resize({"hr": 1}) == {"hr": 1}


@pytest.mark.parametrize("tilt", [(0, 0, 0), (10, -7, 20)], ids=str)
@pytest.mark.parametrize(
    ("spacing", "good"),
    [
        ((2.5, 2.5, 9), True),
        ((1.7, 3.7, 1), True),
        ((1.6, 2.5, 2.5), False),
        ((2.5, 3.8, 2.5), False),
        ((1.25, 1.25, 5), False),
    ],
    ids=str,
)
def test_planes_of_another_spacing_are_refused_by_name(spacing, good, tilt):
    """Each axis within a factor of 1.5 of what is expected, whatever the slices' distance."""
    lr, check = scan(spacing, tilt, (-1, 1, 1)), CheckPlanesd("lr", (2.5, 2.5))
    if good:
        assert check({"lr": lr})["lr"] is lr
    else:
        said = rf"lr\.nii: its pixels are \[{spacing[0]}, {spacing[1]}\] mm.*expected about \[2\.5, 2\.5\] mm"
        with pytest.raises(ValueError, match=said):
            check({"lr": lr})


def test_the_expected_spacing_is_one_of_each_axis():
    CheckPlanesd("lr", (1.0, 4.0))({"lr": scan((1.0, 4.0, 2.0))})
    with pytest.raises(ValueError, match="expected about"):
        CheckPlanesd("lr", (4.0, 1.0))({"lr": scan((1.0, 4.0, 2.0))})
    with pytest.raises(KeyError):
        CheckPlanesd("lr", (1.0, 1.0))({"hr": 1})
    assert CheckPlanesd("lr", (1.0, 1.0), allow_missing_keys=True)({"hr": 1}) == {"hr": 1}
