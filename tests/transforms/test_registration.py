"""Rigid registration of HR to LR puts HR where it was before it was moved."""

import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from common.degradations import BlockAverage, KSpaceTruncation
from common.metrics import displacement, psnr
from common.transforms import RegisterHRd

SPACING = np.array([1.0, 1.2, 1.5])
SHAPE = (40, 36, 28)


def head(seed=0):
    """Smooth tissue within an ellipsoid, in air."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    inside = gaussian_filter(((grid / 0.75) ** 2).sum(0) < 1, 0.7, output=float)
    return (inside * (0.6 + 0.25 * noise / noise.std())).clip(0).astype(np.float32)


def moved(volume, degrees, mm):
    """Rotated about the centre of the volume and shifted, in mm."""
    middle = (np.array(SHAPE) - 1) / 2 * SPACING
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    linear = np.diag(1 / SPACING) @ rotation @ np.diag(SPACING)
    offset = (middle - rotation @ middle + mm) / SPACING
    return affine_transform(volume, linear, offset, order=3).astype(np.float32)


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 2)), BlockAverage((2, 2, 1))], ids=str)
def test_a_moved_volume_is_moved_back(degradation):
    truth = head()
    affine = np.diag([*SPACING * (-1, 1, 1), 1.0])
    affine[:3, 3] = 12, -30, 8
    lr = degradation(MetaTensor(torch.from_numpy(truth)[None], affine=affine))
    wrong = moved(truth, (2, -1, 1), (1.5, -1.0, 1.2))
    hr = MetaTensor(torch.from_numpy(wrong)[None], affine=affine, meta={"filename_or_obj": "a.nii"})
    out = RegisterHRd("hr", "lr", degradation)({"hr": hr, "lr": lr})
    found = out["hr"]
    inside = (slice(6, -6),) * 3
    before, after = (psnr(v[inside], truth[inside]) for v in (wrong, found.numpy()[0]))
    assert before < 20 and after > 35
    left = np.array(displacement(found.numpy()[0], truth, (2, 2, 2)))
    assert np.abs(np.array(displacement(wrong, truth, (2, 2, 2)))).max() > 0.7 and np.abs(left).max() < 0.1
    assert torch.equal(found.affine, hr.affine) and found.meta["filename_or_obj"] == "a.nii" and out["lr"] is lr


def test_without_simpleitk_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"needs SimpleITK: pip install .*\[registration\]"):
        RegisterHRd("hr", "lr", KSpaceTruncation((2, 2, 2)))({"hr": 1, "lr": 1})
