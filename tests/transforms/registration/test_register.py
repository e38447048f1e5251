"""Registration puts HR, a guide, or an LR scan where it was before it was moved."""

import json
import sys
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from common.degradations import BlockAverage, KSpaceTruncation
from common.metrics import displacement, psnr
from common.transforms import RegisterHRd, RegisterLRd, misplacement, register_guide
from common.transforms.registration import register as registration
from tests.bundles.runs import phantom

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
    with pytest.raises(ImportError, match="needs SimpleITK: pip install SimpleITK"):
        RegisterHRd("hr", "lr", KSpaceTruncation((2, 2, 2)))({"hr": 1, "lr": 1})
    with pytest.raises(ImportError, match="needs SimpleITK: pip install SimpleITK"):
        register_guide(1, 1)
    with pytest.raises(ImportError, match="needs SimpleITK: pip install SimpleITK"):
        RegisterLRd("lr", "hr", BlockAverage((2, 2, 1)))({"hr": torch.zeros(1, 4, 4, 4), "lr": 1})


def anatomy(world):
    """How dense the tissue of a head of 70 x 90 x 76 mm about (4, -12, 20) is at points (..., 3) in mm: 0 to 1."""
    at = world - (4, -12, 20)
    inside = 1 / (1 + np.exp((((at / (35, 45, 38)) ** 2).sum(-1) - 1) * 12))
    folds = np.sin(at[..., 0] / 5) * np.cos(at[..., 1] / 6 + 1) * np.sin(at[..., 2] / 7 + 0.5)
    ventricle = np.exp(-(((at - (6, 5, -3)) / (8, 14, 9)) ** 2).sum(-1))
    return inside * (0.55 + 0.3 * folds - 0.4 * ventricle)


def scan(affine, size, contrast, name):
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    volume = contrast(anatomy(index @ affine[:3, :3].T + affine[:3, 3])).astype(np.float32)
    return MetaTensor(torch.from_numpy(volume)[None], affine=affine, meta={"filename_or_obj": f"{name}.nii"})


def grid(columns, size, tilt, centre):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ np.array(columns, dtype=float).T
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


# Where a guide truly lies: finer than LR voxels of 1.4 x 1.4 x 4 mm, stored P-I-R with a wide field of view; and left
# to right with one that cuts the head off below.
GUIDES = {
    "PIR": (
        grid([[0, -0.9, 0], [0, 0, -1.1], [1.0, 0, 0]], (128, 110, 100), (4, -6, 2), (0, -10, 25)),
        (128, 110, 100),
    ),
    "LPS": (grid([[-1.3, 0, 0], [0, -1.3, 0], [0, 0, 3.0]], (72, 84, 22), (0, 3, 0), (4, -12, 28)), (72, 84, 22)),
}


def as_said(affine, size, turn=(0, 0, 0), shift=(0, 0, 0)):
    """An LR scan and its guide, which truly has this affine and says that it lies elsewhere."""
    lr_size, centre = (64, 76, 22), np.array([2.0, -14, 18])
    lr = scan(grid(np.diag((1.4, 1.4, 4)), lr_size, (-7, 3, 0), centre), lr_size, lambda x: x, "t2")
    guide = scan(affine, size, lambda x: (1 - x) ** 2 * (x > 0.05), "t1")
    rotation = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    guide.affine = from_matvec(rotation, centre - rotation @ centre + shift) @ affine
    return lr, guide


@pytest.mark.parametrize(("affine", "size"), GUIDES.values(), ids=GUIDES)
def test_whether_a_guide_lies_on_its_scan(affine, size):
    """Also where it covers a part of the scan only, and on grids that have nothing to do with each other."""
    in_place = misplacement(*as_said(affine, size))
    assert not in_place["misplaced"] and in_place["gain"] <= 0.01 and in_place["similarity"] > 0.2
    for turn, shift, step in [
        ((0, 0, 0), (0, 2, 0), "mm to A"),
        ((0, 0, 0), (0, 0, -4), "mm to I"),
        ((0, 4, 0), (0, 0, 0), "degrees about the posterior-anterior axis"),
        ((6, -3, 5), (6, 5, -7), ""),
    ]:
        found = misplacement(*as_said(affine, size, turn, shift))
        assert found["misplaced"] and found["similarity"] < in_place["similarity"], (turn, shift, found)
        # What is said is the step that the guide has to take.
        assert {"mm to A": "mm to P", "mm to I": "mm to S"}.get(step, step) in found["step"]
        assert not step.startswith("degrees") or found["step"].startswith("-")
    assert misplacement(*as_said(affine, size, shift=(300, 0, 0)))["misplaced"]


@pytest.mark.parametrize(("affine", "size"), GUIDES.values(), ids=GUIDES)
def test_a_guide_that_lies_elsewhere_is_found(affine, size):
    lr_size = (64, 76, 22)
    centre = np.array([2.0, -14, 18])
    lr = scan(grid(np.diag((1.4, 1.4, 4)), lr_size, (-7, 3, 0), centre), lr_size, lambda x: x, "t2")
    turn = Rotation.from_rotvec(3 * np.array([2, -1, 2]) / 3, degrees=True).as_matrix()
    shift = 4 * np.array([2, 2, -1]) / 3
    wrong = np.eye(4)
    wrong[:3, :3] = turn.T
    wrong[:3, 3] = centre - turn.T @ (centre + shift)
    guide = scan(affine, size, lambda x: (1 - x) ** 2 * (x > 0.05), "t1")
    guide.affine = wrong @ affine
    found, quality = register_guide(lr, guide)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)[guide.numpy()[0] > 0]
    points = np.c_[index, np.ones(len(index))]
    apart = np.linalg.norm((points @ (found - affine).T)[:, :3], axis=1)
    assert apart.max() < 0.3
    assert np.allclose(quality["translation_mm"], shift, atol=0.3)
    assert quality["rotation_degrees"] == pytest.approx(3, abs=0.3)
    assert quality["mutual_information_after"] > 1.2 * quality["mutual_information_before"] > 0
    assert np.allclose(register_guide(lr, guide)[0], found, rtol=0, atol=1e-6), "each run finds the same"


def test_sheared_axes_are_refused_with_the_files_name():
    straight, sheared = np.diag([1.5, 1.5, 4, 1]), np.diag([1.5, 1.5, 4, 1])
    sheared[0, 2] = 0.1
    for lr, guide, name in [(sheared, straight, "t2"), (straight, sheared, "t1")]:
        volumes = [scan(a, (8, 8, 8), lambda x: x, n) for a, n in ((lr, "t2"), (guide, "t1"))]
        with pytest.raises(ValueError, match=rf"{name}\.nii: its axes are not orthogonal \(.*0\.025.*resample it"):
            register_guide(*volumes)


IN_PLANE = BlockAverage((2, 2, 1))
HR_SIZE, HR_SPACING = (49, 56, 28), np.array([2.0, 2, 3])
HR_AFFINE = grid(np.diag(HR_SPACING * (-1, 1, 1)), HR_SIZE, (8, -5, 12), (10, -20, 30))
# The LR scan has another field of view, spacing, tilt and direction of its axes.
LR_SIZE = (29, 31, 30)
LR_AFFINE = grid(np.diag((4.3, -4.1, 3.0)), LR_SIZE, (5, -3, 10), (12, -18, 30))


def motion(world):
    """Where the patient's points in the LR scan (..., 3) lie in HR, less where they lie: up to about 6 mm, smooth."""
    x, y, z = np.moveaxis(world, -1, 0) * 2 * np.pi / 160
    wave = np.stack([np.sin(y + 0.3) * np.cos(z), np.cos(x) * np.sin(z + 1), np.sin(x + y)], axis=-1)
    return (2.5, -2.0, 1.5) + 2.5 * wave


def world_of(affine, size):
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def see(volume, world):
    index = (world - HR_AFFINE[:3, 3]) @ np.linalg.inv(HR_AFFINE[:3, :3]).T
    return map_coordinates(volume, np.moveaxis(index, -1, 0), order=3).astype(np.float32)


def pair(monkeypatch):
    """HR, and LR after the patient has moved, in a contrast of its own; few samples, for speed."""
    monkeypatch.setattr(registration, "_SAMPLES", 4000)
    truth = phantom(5, HR_SIZE) / 700
    blurred = gaussian_filter(truth, (0.6, 0.6, 0))
    world = world_of(LR_AFFINE, LR_SIZE)
    lr = np.clip(see(blurred, world + motion(world)), 0, None) ** 0.8
    hr = MetaTensor(
        torch.from_numpy(truth.astype(np.float32))[None], affine=HR_AFFINE, meta={"filename_or_obj": "h.nii"}
    )
    return hr, MetaTensor(torch.from_numpy(lr)[None], affine=LR_AFFINE, meta={"filename_or_obj": "l.nii"})


def test_a_patient_who_moved_is_put_back_on_the_grid_of_the_degradation(tmp_path, monkeypatch):
    hr, lr = pair(monkeypatch)
    register = RegisterLRd("lr", "hr", IN_PLANE, quality_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = register({"hr": hr, "lr": lr})
    affine, size = IN_PLANE.lr_affine(HR_AFFINE), (24, 28, 28)
    out = found["lr"]
    assert found["hr"] is hr and out.shape == (1, *size) and out.dtype == torch.float32
    assert np.allclose(out.affine, affine, rtol=0, atol=1e-9) and out.meta["filename_or_obj"] == "l.nii"
    truth = np.clip(see(gaussian_filter(hr.numpy()[0].astype(float), (0.6, 0.6, 0)), world_of(affine, size)), 0, None)
    world = world_of(affine, size)
    index = (world - LR_AFFINE[:3, 3]) @ np.linalg.inv(LR_AFFINE[:3, :3]).T
    still = map_coordinates(lr.numpy()[0], np.moveaxis(index, -1, 0), order=3)
    tissue = truth > 0.5
    before, after = (np.sqrt(np.mean((v - truth**0.8)[tissue] ** 2)) for v in (still, out.numpy()[0]))
    assert after < 0.5 * before
    assert 0 <= lr.min() <= out.min() and out.max() <= lr.max()
    quality = json.loads((tmp_path / "l_registration.json").read_text())
    assert quality["applied"] == ["rigid", "B-spline"] and 0.3 < quality["least_jacobian_determinant"] < 1
    assert quality["mutual_information_after"] > 1.1 * quality["mutual_information_before"] > 0
    size_of_motion = np.linalg.norm(motion(world), axis=-1)[tissue]
    assert quality["mean_displacement_mm"] == pytest.approx(size_of_motion.mean(), rel=0.2)
    assert quality["largest_displacement_mm"] < 1.6 * size_of_motion.max() and 0 <= quality["share_outside"] < 0.1
    assert torch.equal(register({"hr": hr, "lr": lr})["lr"].as_tensor(), out.as_tensor()), "each run finds the same"


def test_the_motion_is_found_to_a_third_of_a_voxel(monkeypatch):
    hr, lr = pair(monkeypatch)
    grid_ = registration._image(sitk, torch.zeros(1, 24, 28, 28), IN_PLANE.lr_affine(HR_AFFINE))
    with registration._one_thread(sitk):
        transform, _ = RegisterLRd("lr", "hr", IN_PLANE)._find(sitk, hr, lr, grid_)
    world = world_of(IN_PLANE.lr_affine(HR_AFFINE), (24, 28, 28))
    moved = registration._moved(sitk, transform, grid_)
    error = np.linalg.norm(moved + motion(moved) - world, axis=-1)[see(hr.numpy()[0], world) > 0.5]
    assert error.mean() < 4 / 3 and np.linalg.norm(motion(world), axis=-1).mean() > 3


def test_a_step_that_folds_or_makes_it_worse_is_left_out_and_named(tmp_path, monkeypatch):
    hr, lr = pair(monkeypatch)
    mirror, away = sitk.AffineTransform(3), sitk.TranslationTransform(3, (9.0, 0, 0))
    mirror.Scale((-1.0, 1, 1))
    results = []
    for wrong, why in ((mirror, r"folds space over \(.* is -1\.000"), (away, r"lowers the mutual information from")):
        monkeypatch.setattr(registration, "_register_freely", lambda *_, wrong=wrong: wrong)
        with pytest.warns(UserWarning, match=rf"l\.nii: the B-spline .* to h\.nii is left out, since it {why}"):
            results.append(RegisterLRd("lr", "hr", IN_PLANE, quality_dir=tmp_path)({"hr": hr, "lr": lr})["lr"])
        quality = json.loads((tmp_path / "l_registration.json").read_text())
        assert quality["applied"] == ["rigid"] and quality["least_jacobian_determinant"] == pytest.approx(1)
    assert torch.equal(*results)


def test_what_has_no_partner_stays_as_it_is():
    register = RegisterLRd("lr", "hr", IN_PLANE)
    for entry in ({"hr": 1}, {"lr": 1}, {}):
        assert register(entry) == entry
