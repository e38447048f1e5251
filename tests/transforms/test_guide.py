"""A guide on the grid of the result: an analytic subject in world space, sampled on one grid, is seen from another."""

import json
import sys
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec

from common.degradations import GaussianProfile
from common.transforms import LoadScand, ResampleGuided, ShiftGuided
from common.transforms import guide as guides
from common.transforms.scan.volume import reorient_volume
from tests.refused import refused
from tests.transforms.grids import affine_of, index_of, scan_of, told, world_of

IN_PLANE = GaussianProfile((2, 2, 1))
CENTRE = np.array([3.0, -5.0, 8.0])


def subject(world, width=8.0):
    """Smooth blobs about the centre, 0 to about 1, at points (..., 3) in mm."""
    at = CENTRE + np.array([[0, 0, 0], [14, 4, -6], [-9, 12, 5], [2, -13, 9]])
    squared = ((world[..., None, :] - at) ** 2).sum(-1)
    return np.exp(-squared / (2 * width**2)) @ (0.5, 0.9, 0.7, 0.8)


def full(world):
    return np.ones(world.shape[:-1])


def scan(name, codes, spacing, size, tilt=(0, 0, 0), centre=CENTRE, see=subject):
    affine = affine_of(codes, spacing, tilt, centre, size)
    return scan_of(see(world_of(affine, size)).astype(np.float32), affine, f"/data/{name}.nii.gz")


@pytest.fixture
def cover(monkeypatch):
    return partial(monkeypatch.setattr, "common.transforms.guide._COVERED")


def resampled(lr, guide, **options):
    return ResampleGuided("guide", "lr", IN_PLANE, **options)({"lr": lr, "guide": guide})["guide"]


def field_of_view(world, volume, margin=0.0):
    """Which points lie in a volume, to the edges of its voxels less a margin in mm."""
    index = index_of(world, volume.affine)
    edge = margin / np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    return ((index >= edge - 0.5) & (index <= np.array(volume.shape[1:]) - 0.5 - edge)).all(-1)


def test_from_files_to_the_grid_of_the_result(tmp_path, cover):
    cover(0)
    lr = scan("t2", "SLP", (4, 1.9, 2.1), (13, 30, 34), (8, -12, 5), see=lambda w: 900 * subject(w))
    t1 = scan("t1", "PIR", (1.1, 1.2, 1.1), (40, 44, 48), (-10, 4, 15), (4, -3, 5), lambda w: 500 * subject(w) ** 2)
    for name, volume in (("t2", lr), ("t1", t1)):
        nib.save(nib.Nifti1Image(volume.numpy()[0], volume.affine.numpy()), tmp_path / f"{name}.nii.gz")
    prepared = LoadScand("image", "auto")({"image": tmp_path / "t2.nii.gz", "guide": tmp_path / "t1.nii.gz"})
    prepared = LoadScand("guide", ordered=False)(prepared)
    guide = ResampleGuided("guide", "image", IN_PLANE)(prepared)["guide"]
    # Axes of the LR scan from left to right, A-P and S-I; its slices lie along the first stored axis.
    assert guide.shape == (1, 60, 68, 13) and guide.affine.dtype == torch.float64
    assert np.allclose(guide.affine, IN_PLANE.compute_hr_affine(prepared["image"].affine))
    assert np.allclose(guide.affine[:3, 2], lr.affine[:3, 0], atol=1e-5)
    assert guide.meta["filename_or_obj"] == str(tmp_path / "t1.nii.gz")
    low, high = guide.meta["intensity_range"].tolist()
    world = world_of(guide.affine, guide.shape[1:])
    expected = (500 * subject(world) ** 2 - low) / (high - low)
    deep, outside = field_of_view(world, t1, margin=5), ~field_of_view(world, t1, margin=-1e-3)
    assert deep.mean() > 0.2 and outside.mean() > 0.05
    # The slices of 4 mm average a little of what is sampled here at their centres.
    assert np.abs(guide.numpy()[0] - expected)[deep].max() < 0.05 and not guide.numpy()[0][outside].any()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIR"])
def test_resampling_shows_the_same_subject(codes, cover):
    cover(0)
    lr = scan("t2", "LAS", (2, 2, 1), (24, 20, 30), (5, 8, -7))
    guide = scan("t1", codes, (1.1, 1.2, 1.15), (44, 42, 46), (-6, 9, 20))
    before = guide.as_tensor().clone()
    out = resampled(lr, guide)
    world = world_of(IN_PLANE.compute_hr_affine(lr.affine), (48, 40, 30))
    deep = field_of_view(world, guide, margin=5)
    assert deep.mean() > 0.3 and np.abs(out.numpy()[0] - subject(world))[deep].max() < 1e-3
    assert torch.equal(guide.as_tensor(), before)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 6)], ids=str)
def test_a_guide_fills_its_field_of_view_and_no_more(spacing, cover):
    cover(0)
    # Of both stacks of 6 mm slices the first and the last lie half a voxel beyond the samples of the other.
    lr = scan("t2", "RAS", (2, 2, 6), (30, 30, 12), (0, 0, 2), see=full)
    centre = CENTRE + np.array([0.3, 0.2, 2.0])
    guide = partial(scan, "t1", "LPS", spacing, (50, 50, 42 // spacing[2]), centre=centre)
    # Dark in the middle, so that clipping to the range hides nothing.
    hollow = guide(see=lambda world: np.linalg.norm(world - centre, axis=-1) > 4)
    out = resampled(lr, hollow)
    world = world_of(out.affine, out.shape[1:])
    inside, far = field_of_view(world, hollow), np.abs(world - centre).max(-1) > 18
    assert 0.3 < inside.mean() < 0.6 and (inside & far).any()
    assert np.allclose(out.numpy()[0][far], inside[far], atol=2e-3)
    noise = np.random.default_rng(0).integers(0, 2, hollow.shape[1:])
    out = resampled(lr, guide(see=lambda _: noise))
    assert out.min() >= 0 and out.max() <= 1, "splines overshoot, magnitudes must not"


def test_a_guide_on_the_grid_is_taken_bit_for_bit():
    lr = scan_of(torch.rand(10, 12, 8), affine_of("PIR", (1.8, 2, 3), (3, 4, 5)))
    grid = IN_PLANE.compute_hr_affine(lr.affine)
    guide = scan_of(torch.rand(21, 24, 9), grid + 1e-6)
    out = resampled(lr, guide)
    assert torch.equal(out.as_tensor(), guide.as_tensor()[:, :20, :, :8]) and np.array_equal(out.affine, grid)
    # Also where it is stored in another order and mirrored.
    turned = MetaTensor(*reorient_volume(guide.as_tensor(), guide.affine, np.array([[1, -1], [2, 1], [0, -1]])))
    assert turned.shape == (1, 9, 21, 24) and torch.equal(resampled(lr, turned), out)


def test_thick_tilted_slices_average_the_guide_across_them_and_not_in_their_plane():
    see = partial(subject, width=4.0)
    lr = scan("t2", "RAS", (2.2, 2.2, 6), (20, 20, 8), (20, -12, 0))
    guide = scan("t1", "ASL", (1, 1, 1), (64, 64, 64), see=see)
    out = resampled(lr, guide).numpy()[0]
    world = world_of(IN_PLANE.compute_hr_affine(lr.affine), (40, 40, 8))
    # In plane sigma is below 0.2 mm: there the guide is nearly as it is.
    sigma = np.sqrt((6**2 - 1) / (8 * np.log(2))) * lr.affine.numpy()[:3, 2] / 6
    offsets = np.linspace(-3, 3, 41)
    profile = np.average([see(world + o * sigma) for o in offsets], axis=0, weights=np.exp(-(offsets**2) / 2))
    inside = field_of_view(world, guide, margin=8)
    assert np.abs(out - see(world))[inside].max() > 0.1 and np.abs(out - profile)[inside].max() < 0.01


def test_how_fine_a_guide_must_be_and_what_it_must_cover(cover):
    fine = scan("fine", "RAS", (0.9, 0.9, 4), (40, 40, 10))
    coarse = scan("coarse", "RAS", (1.8, 1.8, 4), (20, 20, 10))
    sagittal = scan("sagittal", "ASR", (0.9, 0.9, 4), (40, 40, 10))
    medium = scan("medium", "SRA", (1.5, 1.5, 1.5), (40, 40, 40))
    t2 = scan("t2", "RAS", (2, 2, 4), (20, 20, 10))
    far = scan("far", "RAS", (1, 1, 1), (50, 50, 50), centre=CENTRE - (300, 0, 0))
    # Slices at -18 to 18 mm; the guide ends at 4 mm (1 mm voxels to 3.5 mm and their half).
    whole = scan("whole", "RAS", (2, 2, 4), (20, 20, 10), centre=(0, 0, 0), see=full)
    parts = [scan("part", c, (1, 1, 1), (60, 60, 60), centre=(0, 0, -26), see=full) for c in ("RAS", "LPI", "IRP")]
    beyond = ["part.nii", "covers 60.0%", "whole.nii", "at least 95%", "by up to 14.0 mm to S. ", "--register True"]
    for call, words in [
        (lambda: resampled(fine, coarse), ["coarse.nii", "fine.nii", "swapped?", [1.8, 1.8], [0.9, 0.9]]),
        # Fine enough within its own slices, but these lie across those of the scan.
        (lambda: resampled(fine, sagittal), ["samples are [4.0, 0.9] mm apart"]),
        *[(lambda part=part: resampled(whole, part), beyond) for part in parts],
        (lambda: resampled(t2, far), ["far.nii", "covers 0.0%", "t2.nii", " mm to R"]),
        (lambda: resampled(t2, far, register=True), ["far.nii", "t2.nii"]),
        (lambda: resampled(t2, far, register="perhaps"), ["'perhaps'"]),
    ]:
        refused(call, ValueError, *words)
    cover(0.6)
    resampled(whole, parts[0])
    told(lambda: resampled(coarse, fine))
    told(lambda: resampled(t2, medium), "medium.nii", "[1.5, 1.5] mm apart", "t2.nii", "[1.0, 1.0]")


def test_registration_puts_a_moved_guide_back_and_auto_no_other(tmp_path, monkeypatch):
    lr = scan("t2", "RAS", (2, 2, 3), (36, 36, 22))
    quality_file = tmp_path / "t2_registration.json"
    density = scan("t1", "LSA", (1, 1, 1), (80, 80, 80), (4, -3, 9))
    guide = (1.2 - density) * (density > 0.05)
    moved = ShiftGuided("guide", 2.5)({"guide": guide})["guide"]
    auto = partial(resampled, lr, register="auto", quality_dir=tmp_path)
    straight, off = resampled(lr, guide), resampled(lr, moved)
    assert torch.equal(told(lambda: auto(guide)).as_tensor(), straight.as_tensor()) and not list(tmp_path.iterdir())
    found = told(lambda: auto(moved), "guide registered, 4.", "t1.nii.gz did not lie on", "t2.nii.gz: a step")
    quality = json.loads(quality_file.read_text())
    assert quality["mutual_information_after"] > quality["mutual_information_before"] > 0 < quality["similarity"]
    assert np.allclose(np.abs(quality["translation_mm"]), 2.5, atol=0.4)
    quality_file.unlink()
    out = resampled(lr, moved, register=True, quality_dir=tmp_path)
    assert json.loads(quality_file.read_text()).keys() == quality.keys()
    assert torch.allclose(found.as_tensor(), out.as_tensor(), atol=1e-4)
    error, without = (float((v - straight).as_tensor().square().mean().sqrt()) for v in (out, off))
    assert error < 0.25 * without
    # A registration that ends elsewhere, as with another person's guide, is not believed.
    wrong = from_matvec(np.eye(3), [0, 6, 0]) @ guide.affine.numpy()
    with monkeypatch.context() as patch:
        patch.setattr(guides, "register_contrasts", lambda *_: (wrong, {}))
        refused(lambda: auto(moved), ValueError, "t1.nii.gz", "t2.nii")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    refused(lambda: auto(moved), ImportError, "t1.nii.gz", "needs SimpleITK", "--register False")


def test_auto_warns_of_a_guide_with_the_same_outline_and_other_anatomy():
    def stranger(world):
        return np.abs(np.sin(world / 6)).prod(-1) + 0.3 * (subject(world) > 0.05)

    lr, place = scan("t2", "RAS", (2, 2, 3), (36, 36, 22)), ("LSA", (1, 1, 1), (80, 80, 80), (4, -3, 9))
    words = "t1.nii.gz", "hardly resembles", "t2.nii.gz", "0.05", "Are both of one person?"
    told(lambda: resampled(lr, scan("t1", *place, see=stranger), register="auto"), *words)


def test_a_subjects_guide_is_shifted_the_same_way_in_any_order_and_run():
    affine = affine_of("PIR", (1, 2, 3), (10, 20, 30))

    def moved(name, millimetres=1.5, **entry):
        before = scan_of(subject(world_of(affine, (4, 4, 4))), affine, name)
        after = ShiftGuided("guide", millimetres)({"guide": before, **entry})["guide"]
        assert torch.equal(after.as_tensor(), before.as_tensor()) and np.array_equal(before.affine, affine)
        assert np.array_equal(after.affine[:, :3], affine[:, :3])
        return tuple((after.affine.numpy() - affine)[:3, 3].round(9))

    subjects = [f"sub-{n:02d}" for n in range(1, 41)]
    first = [moved("t1.nii.gz", subject=s) for s in subjects]
    assert [moved("other.nii.gz", subject=s) for s in reversed(subjects)] == first[::-1]
    assert set(np.abs(first).ravel()) == {1.5} and len(set(first)) == 8, "each axis goes either way"
    # The same in every process, unlike hash().
    assert first[0] == (1.5, -1.5, -1.5)
    assert len({moved(f"/data/{s}_t1.nii.gz") for s in subjects}) == 8, "without a subject, the file's name says it"
    assert moved("t1.nii.gz", millimetres=0) == (0, 0, 0)
