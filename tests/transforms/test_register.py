"""Registration puts HR, a guide, or an LR scan where it was before it was moved."""

import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.affines import from_matvec
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from common.degradations import GaussianProfile, KSpaceTruncation
from common.geometry.registration import contrasts
from common.geometry.registration.contrasts import find_misplacement, register_contrasts
from common.metrics import compute_psnr, measure_displacement
from common.transforms import RegisterHRd, RegisterLRd
from tests.bundles.runs import phantom
from tests.refused import refused
from tests.transforms.grids import affine_of, index_of, scan_of, told, world_of

SHAPE = (40, 36, 28)
IN_PLANE = GaussianProfile((2, 2, 1))


def see(voxels, affine, world):
    """What a volume shows at points (..., 3) in mm."""
    return map_coordinates(voxels, np.moveaxis(index_of(world, affine), -1, 0), order=3).astype(np.float32)


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 2)), IN_PLANE], ids=str)
def test_a_moved_volume_is_moved_back(degradation):
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    affine = affine_of("LAS", (1.0, 1.2, 1.5), middle=(12, -30, 8))
    world = world_of(affine, SHAPE)
    at = world - world.mean((0, 1, 2))
    # Smooth tissue within an ellipsoid, in air.
    inside = gaussian_filter(((at / (14.6, 15.7, 15.2)) ** 2).sum(-1) < 1, 0.7, output=float)
    truth = (inside * (0.6 + 0.25 * noise / noise.std())).clip(0).astype(np.float32)
    turned = Rotation.from_euler("xyz", (-2, -1, 1), degrees=True).apply(at.reshape(-1, 3)).reshape(at.shape)
    wrong = see(truth, affine, turned + world.mean((0, 1, 2)) + (1.5, -1.0, 1.2))
    lr, hr = degradation(scan_of(truth, affine)), scan_of(wrong, affine, "a.nii")
    out = RegisterHRd("hr", "lr", degradation)({"hr": hr, "lr": lr})
    found = out["hr"]
    inside, volumes = (slice(6, -6),) * 3, (wrong, found.numpy()[0])
    before, after = (compute_psnr(v[inside], truth[inside]) for v in volumes)
    assert before < 20 and after > 35
    before, after = (np.abs(measure_displacement(v, truth, (2, 2, 2))).max() for v in volumes)
    assert before > 0.7 and after < 0.1
    assert torch.equal(found.affine, hr.affine) and found.meta["filename_or_obj"] == "a.nii" and out["lr"] is lr


def test_sheared_axes_and_a_missing_simpleitk_are_refused(monkeypatch):
    sheared = np.diag([1.5, 1.5, 4, 1])
    sheared[0, 2] = 0.1
    for lr, guide, name in [(sheared, np.eye(4), "t2.nii"), (np.eye(4), sheared, "t1.nii")]:
        pair = [scan_of(torch.rand(8, 8, 8), affine, file) for affine, file in ((lr, "t2.nii"), (guide, "t1.nii"))]
        refused(lambda pair=pair: register_contrasts(*pair), ValueError, name, "orthogonal", "0.025")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    entry, words = {"hr": scan_of(torch.zeros(4, 4, 4), np.eye(4)), "lr": 1}, "pip install SimpleITK"
    refused(lambda: register_contrasts(1, 1), ImportError, words)
    refused(lambda: RegisterHRd("hr", "lr", IN_PLANE)(entry), ImportError, words)
    refused(lambda: RegisterLRd("lr", "hr", IN_PLANE)(entry), ImportError, words)


def anatomy(world):
    """How dense the tissue of a head of 70 x 90 x 76 mm about (4, -12, 20) is at points (..., 3) in mm: 0 to 1."""
    at = world - (4, -12, 20)
    inside = 1 / (1 + np.exp((((at / (35, 45, 38)) ** 2).sum(-1) - 1) * 12))
    folds = np.sin(at[..., 0] / 5) * np.cos(at[..., 1] / 6 + 1) * np.sin(at[..., 2] / 7 + 0.5)
    ventricle = np.exp(-(((at - (6, 5, -3)) / (8, 14, 9)) ** 2).sum(-1))
    return inside * (0.55 + 0.3 * folds - 0.4 * ventricle)


# Where a guide truly lies: finer than LR voxels of 1.4 x 1.4 x 4 mm, stored P-I-R with a wide field of view; and left
# to right with one that cuts the head off below.
GUIDES = {
    "PIR": ("PIR", (0.9, 1.1, 1.0), (4, -6, 2), (0, -10, 25), (128, 110, 100)),
    "LPS": ("LPS", (1.3, 1.3, 3.0), (0, 3, 0), (4, -12, 28), (72, 84, 22)),
}


def as_said(guide, turn=(0, 0, 0), shift=(0, 0, 0)):
    """An LR scan and its guide, which truly lies as given and says that it lies elsewhere; and its true affine."""
    lr_size, centre = (64, 76, 22), np.array([2.0, -14, 18])
    lr_affine, affine = affine_of("RAS", (1.4, 1.4, 4), (-7, 3, 0), centre, lr_size), affine_of(*guide)
    density = anatomy(world_of(affine, guide[-1]))
    rotation = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    said = from_matvec(rotation, centre - rotation @ centre + shift) @ affine
    t1 = scan_of(((1 - density) ** 2 * (density > 0.05)).astype(np.float32), said, "t1.nii")
    return scan_of(anatomy(world_of(lr_affine, lr_size)).astype(np.float32), lr_affine, "t2.nii"), t1, affine


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_whether_a_guide_lies_on_its_scan_and_where_it_lies_instead(guide):
    in_place = find_misplacement(*as_said(guide)[:2])
    assert not in_place["misplaced"] and in_place["gain"] <= 0.01 and in_place["similarity"] > 0.2
    # What is said is the step that the guide has to take.
    for turn, shift, step in [
        ((0, 0, 0), (0, 2, 0), "mm to P"),
        ((0, 0, 0), (0, 0, -4), "mm to S"),
        ((0, 4, 0), (0, 0, 0), "degrees about the posterior-anterior axis"),
        ((6, -3, 5), (6, 5, -7), ""),
    ]:
        found = find_misplacement(*as_said(guide, turn, shift)[:2])
        assert found["misplaced"] and found["similarity"] < in_place["similarity"], (turn, shift, found)
        assert step in found["step"] and found["step"].startswith("-" if step.startswith("degrees") else "")
    assert find_misplacement(*as_said(guide, shift=(300, 0, 0))[:2])["misplaced"]
    turn, shift = np.array([2.0, -1, 2]), 4 * np.array([2, 2, -1]) / 3
    lr, said, affine = as_said(guide, -turn, -Rotation.from_rotvec(-turn, degrees=True).apply(shift))
    found, quality = register_contrasts(lr, said)
    apart = np.linalg.norm(world_of(found, guide[-1]) - world_of(affine, guide[-1]), axis=-1)
    assert apart[said.numpy()[0] > 0].max() < 0.3
    assert np.allclose(quality["translation_mm"], shift, atol=0.3) and abs(quality["rotation_degrees"] - 3) < 0.3
    assert quality["mutual_information_after"] > 1.2 * quality["mutual_information_before"] > 0
    assert np.allclose(register_contrasts(lr, said)[0], found, rtol=0, atol=1e-6), "each run finds the same"


HR_SIZE, LR_SIZE = (49, 56, 28), (29, 31, 30)
HR_AFFINE = affine_of("LAS", (2, 2, 3), (8, -5, 12), (10, -20, 30), HR_SIZE)
# The LR scan has another field of view, spacing, tilt and direction of its axes.
LR_AFFINE = affine_of("RPS", (4.3, 4.1, 3.0), (5, -3, 10), (12, -18, 30), LR_SIZE)
OUT_AFFINE, OUT_SIZE = IN_PLANE.compute_lr_affine(HR_AFFINE), (24, 28, 28)


def motion(world):
    """Where the patient's points in the LR scan (..., 3) lie in HR, less where they lie: up to about 6 mm, smooth."""
    x, y, z = np.moveaxis(world, -1, 0) * 2 * np.pi / 160
    wave = np.stack([np.sin(y + 0.3) * np.cos(z), np.cos(x) * np.sin(z + 1), np.sin(x + y)], axis=-1)
    return (2.5, -2.0, 1.5) + 2.5 * wave


@pytest.fixture
def entry(monkeypatch):
    """HR, and LR after the patient has moved, in a contrast of its own; few samples, for speed."""
    monkeypatch.setattr(contrasts, "_SAMPLES", 4000)
    truth = phantom(5, HR_SIZE) / 700
    world = world_of(LR_AFFINE, LR_SIZE)
    lr = np.clip(see(gaussian_filter(truth, (0.6, 0.6, 0)), HR_AFFINE, world + motion(world)), 0, None) ** 0.8
    return {"hr": scan_of(truth.astype(np.float32), HR_AFFINE, "h.nii"), "lr": scan_of(lr, LR_AFFINE, "l.nii")}


def test_a_patient_who_moved_is_put_back_on_the_grid_of_the_degradation(tmp_path, monkeypatch, entry):
    transforms, find = [], contrasts._find_warp
    monkeypatch.setattr(contrasts, "_find_warp", lambda *args: transforms.append(find(*args)) or transforms[-1])
    register, (hr, lr) = RegisterLRd("lr", "hr", IN_PLANE, quality_dir=tmp_path), entry.values()
    found = told(lambda: register(entry))
    out = found["lr"]
    assert found["hr"] is hr and out.shape == (1, *OUT_SIZE) and out.dtype == torch.float32
    assert np.allclose(out.affine, OUT_AFFINE, rtol=0, atol=1e-9) and out.meta["filename_or_obj"] == "l.nii"
    world = world_of(OUT_AFFINE, OUT_SIZE)
    truth = np.clip(see(gaussian_filter(hr.numpy()[0].astype(float), (0.6, 0.6, 0)), HR_AFFINE, world), 0, None)
    tissue = truth > 0.5
    still = see(lr.numpy()[0], LR_AFFINE, world)
    before, after = (np.sqrt(np.mean((v - truth**0.8)[tissue] ** 2)) for v in (still, out.numpy()[0]))
    assert after < 0.5 * before and 0 <= lr.min() <= out.min() and out.max() <= lr.max()
    quality = json.loads((tmp_path / "l_registration.json").read_text())
    assert quality["applied"] == ["rigid", "B-spline"] and 0.3 < quality["least_jacobian_determinant"] < 1
    assert quality["mutual_information_after"] > 1.1 * quality["mutual_information_before"] > 0
    distance = np.linalg.norm(motion(world), axis=-1)[tissue]
    assert quality["mean_displacement_mm"] == pytest.approx(distance.mean(), rel=0.2)
    assert quality["largest_displacement_mm"] < 1.6 * distance.max() and 0 <= quality["share_outside"] < 0.1
    # The motion is found to a third of a voxel.
    grid = contrasts._make_image(sitk, torch.zeros(1, *OUT_SIZE), OUT_AFFINE)
    there = contrasts._transform_voxels(sitk, transforms[0][0], grid)
    error = np.linalg.norm(there + motion(there) - world, axis=-1)[see(hr.numpy()[0], HR_AFFINE, world) > 0.5]
    assert error.mean() < 4 / 3 and np.linalg.norm(motion(world), axis=-1).mean() > 3
    assert torch.equal(register(entry)["lr"].as_tensor(), out.as_tensor()), "each run finds the same"


def test_a_step_that_folds_or_makes_it_worse_and_what_has_no_partner_are_left_out(tmp_path, monkeypatch, entry):
    mirror, away = sitk.ScaleTransform(3, (-1.0, 1, 1)), sitk.TranslationTransform(3, (9.0, 0, 0))
    register, results = RegisterLRd("lr", "hr", IN_PLANE, quality_dir=tmp_path), []
    for wrong, why in ((mirror, ["folds space over", "is -1.000"]), (away, ["lowers the mutual information"])):
        monkeypatch.setattr(contrasts, "_register_deformably", lambda *_, wrong=wrong: wrong)
        results.append(told(lambda: register(entry), "l.nii: the B-spline", "h.nii is left out", *why)["lr"])
        quality = json.loads((tmp_path / "l_registration.json").read_text())
        assert quality["applied"] == ["rigid"] and quality["least_jacobian_determinant"] == pytest.approx(1)
    assert torch.equal(*results)
    for alone in ({"hr": 1}, {"lr": 1}, {}):
        assert RegisterLRd("lr", "hr", IN_PLANE)(alone) == alone
