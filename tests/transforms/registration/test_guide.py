"""A guide on the grid of the result: an analytic subject in world space, sampled on one grid, is seen from another."""

import json
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from common.degradations import BlockAverage
from common.transforms import LoadScand, ResampleGuided, ShiftGuided
from common.transforms.registration import guide as guides
from common.transforms.scan.volume import reorient_volume

IN_PLANE = BlockAverage((2, 2, 1))
CENTRE = np.array([3.0, -5.0, 8.0])


def subject(world, width=8.0):
    """Smooth blobs about the centre, 0 to about 1, at points (..., 3) in mm."""
    at = CENTRE + np.array([[0, 0, 0], [14, 4, -6], [-9, 12, 5], [2, -13, 9]])
    height = np.array([0.5, 0.9, 0.7, 0.8])
    squared = ((world[..., None, :] - at) ** 2).sum(-1)
    return (height * np.exp(-squared / (2 * width**2))).sum(-1)


def grid_affine(codes, spacing, size, tilt=(0, 0, 0), centre=CENTRE):
    """Axes that point as ``codes`` say, tilted, with the middle of the volume at ``centre``."""
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[ornt[:, 0].astype(int), range(3)] = ornt[:, 1] * np.array(spacing)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def world_of(affine, size):
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def scan(affine, size, name, see=subject):
    volume = torch.from_numpy(see(world_of(affine, size)).astype(np.float32))[None]
    return MetaTensor(volume, affine=affine, meta={"filename_or_obj": f"/data/{name}.nii.gz"})


def field_of_view(world, affine, size, margin=0.0):
    """Which points lie in a volume, to the edges of its voxels less a margin in mm."""
    index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    edge = margin / np.linalg.norm(affine[:3, :3], axis=0)
    return ((index >= edge - 0.5) & (index <= np.array(size) - 0.5 - edge)).all(-1)


def test_from_files_to_the_grid_of_the_result(tmp_path):
    lr_size, guide_size = (13, 30, 34), (40, 44, 48)
    lr_affine = grid_affine("SLP", (4, 1.9, 2.1), lr_size, (8, -12, 5))
    guide_affine = grid_affine("PIR", (1.1, 1.2, 1.1), guide_size, (-10, 4, 15), (4, -3, 5))
    for name, affine, size, see in [
        ("t2", lr_affine, lr_size, lambda world: 900 * subject(world)),
        ("t1", guide_affine, guide_size, lambda world: 500 * subject(world) ** 2),
    ]:
        nib.save(nib.Nifti1Image(see(world_of(affine, size)).astype(np.float32), affine), tmp_path / f"{name}.nii.gz")
    prepared = Compose(
        [
            LoadScand("image", "auto"),
            LoadScand("guide", ordered=False),
            ResampleGuided("guide", "image", IN_PLANE, coverage=0),
        ]
    )({"image": tmp_path / "t2.nii.gz", "guide": tmp_path / "t1.nii.gz"})
    guide = prepared["guide"]
    # Axes of the LR scan from left to right, A-P and S-I; its slices lie along the first stored axis.
    assert guide.shape == (1, 60, 68, 13) and guide.affine.dtype == torch.float64
    assert np.allclose(guide.affine, IN_PLANE.hr_affine(prepared["image"].affine))
    assert np.allclose(guide.affine[:3, 2], lr_affine[:3, 0], atol=1e-5)
    assert guide.meta["filename_or_obj"] == str(tmp_path / "t1.nii.gz")
    low, high = guide.meta["intensity_range"].tolist()
    world = world_of(guide.affine, guide.shape[1:])
    expected = (500 * subject(world) ** 2 - low) / (high - low)
    deep = field_of_view(world, guide_affine, guide_size, margin=5)
    assert deep.mean() > 0.2
    # The slices of 4 mm average a little of what is sampled here at their centres.
    assert np.abs(guide.numpy()[0] - expected)[deep].max() < 0.05
    outside = ~field_of_view(world, guide_affine, guide_size, margin=-1e-3)
    assert outside.mean() > 0.05 and (guide.numpy()[0][outside] == 0).all()


def full(affine, size, name):
    return scan(affine, size, name, lambda world: np.ones(world.shape[:-1]))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIR"])
def test_resampling_shows_the_same_subject(codes):
    lr_affine = grid_affine("LAS", (2, 2, 1), (24, 20, 30), (5, 8, -7))
    size = (44, 42, 46)
    affine = grid_affine(codes, (1.1, 1.2, 1.15), size, (-6, 9, 20))
    entry = {"lr": scan(lr_affine, (24, 20, 30), "t2"), "guide": scan(affine, size, "t1")}
    out = ResampleGuided("guide", "lr", IN_PLANE, coverage=0)(entry)["guide"]
    world = world_of(IN_PLANE.hr_affine(lr_affine), (48, 40, 30))
    deep = field_of_view(world, affine, size, margin=5)
    assert deep.mean() > 0.3 and np.abs(out.numpy()[0] - subject(world))[deep].max() < 1e-3
    assert torch.equal(entry["guide"].as_tensor(), scan(affine, size, "t1").as_tensor())


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 6)], ids=str)
def test_a_guide_fills_its_field_of_view_and_no_more(spacing):
    # Of both stacks of 6 mm slices the first and the last lie half a voxel beyond the samples of the other.
    lr_affine = grid_affine("RAS", (2, 2, 6), (30, 30, 12), (0, 0, 2))
    size = tuple(int(n / s) for n, s in zip((50, 50, 42), spacing, strict=True))
    centre = CENTRE + np.array([0.3, 0.2, 2.0])
    affine = grid_affine("LPS", spacing, size, centre=centre)
    lr = full(lr_affine, (30, 30, 12), "t2")
    # Dark in the middle, so that clipping to the range hides nothing.
    guide = scan(affine, size, "t1", lambda world: np.linalg.norm(world - centre, axis=-1) > 4)
    out = ResampleGuided("guide", "lr", IN_PLANE, coverage=0)({"lr": lr, "guide": guide})["guide"]
    world = world_of(out.affine, out.shape[1:])
    inside, far = field_of_view(world, affine, size), np.abs(world - centre).max(-1) > 18
    assert 0.3 < inside.mean() < 0.6 and (inside & far).any()
    assert np.allclose(out.numpy()[0][far], inside[far], atol=2e-3)
    noise = scan(affine, size, "t1", lambda world: np.random.default_rng(0).integers(0, 2, world.shape[:-1]))
    out = ResampleGuided("guide", "lr", IN_PLANE, coverage=0)({"lr": lr, "guide": noise})["guide"]
    assert out.min() >= 0 and out.max() <= 1, "splines overshoot, magnitudes must not"


def test_a_guide_on_the_grid_is_taken_bit_for_bit():
    lr_affine = grid_affine("PIR", (1.8, 2, 3), (10, 12, 8), (3, 4, 5))
    guide = MetaTensor(torch.rand(1, 21, 24, 9), affine=IN_PLANE.hr_affine(lr_affine), meta={"filename_or_obj": "a"})
    guide.affine = guide.affine + 1e-6
    lr = MetaTensor(torch.rand(1, 10, 12, 8), affine=lr_affine)
    out = ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": guide})["guide"]
    assert torch.equal(out.as_tensor(), guide.as_tensor()[:, :20, :, :8])
    assert np.array_equal(out.affine, IN_PLANE.hr_affine(lr_affine))
    # Also where it is stored in another order and mirrored.
    order = np.array([[1, -1], [2, 1], [0, -1]])
    guide = MetaTensor(*reorient_volume(guide.as_tensor(), guide.affine, order), meta={"filename_or_obj": "a"})
    assert guide.shape == (1, 9, 21, 24)
    assert torch.equal(ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": guide})["guide"], out)


def test_thick_tilted_slices_average_the_guide_across_them_and_not_in_their_plane():
    def see(world):
        return subject(world, width=4.0)

    lr_affine = grid_affine("RAS", (2.2, 2.2, 6), (20, 20, 8), (20, -12, 0))
    affine = grid_affine("ASL", (1, 1, 1), (64, 64, 64))
    entry = {"lr": scan(lr_affine, (20, 20, 8), "t2"), "guide": scan(affine, (64, 64, 64), "t1", see)}
    out = ResampleGuided("guide", "lr", IN_PLANE)(entry)["guide"].numpy()[0]
    world = world_of(IN_PLANE.hr_affine(lr_affine), (40, 40, 8))
    sigma_plane, sigma_slice = np.sqrt(np.array([1.1**2, 6**2]) - 1) / np.sqrt(8 * np.log(2))
    normal = lr_affine[:3, 2] / 6
    offsets = np.linspace(-3, 3, 41)
    weights = np.exp(-(offsets**2) / 2)
    profile = sum(w * see(world + o * sigma_slice * normal) for o, w in zip(offsets, weights, strict=True))
    inside = field_of_view(world, affine, (64, 64, 64), margin=8)
    assert sigma_plane < 0.2, "in plane the guide is nearly as it is"
    assert np.abs(out - see(world))[inside].max() > 0.1
    assert np.abs(out - profile / weights.sum())[inside].max() < 0.01


def swapped():
    fine, coarse = grid_affine("RAS", (0.9, 0.9, 4), (40, 40, 10)), grid_affine("RAS", (1.8, 1.8, 4), (20, 20, 10))
    return scan(fine, (40, 40, 10), "t2"), scan(coarse, (20, 20, 10), "t1")


def test_a_guide_that_is_coarser_than_the_scan_is_refused():
    lr, guide = swapped()
    with pytest.raises(ValueError, match=r"t1\.nii.*coarser than.*t2\.nii.*swapped\?.*\[1\.8, 1\.8\].*\[0\.9, 0\.9\]"):
        ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": guide})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResampleGuided("guide", "lr", IN_PLANE)({"lr": guide, "guide": lr})
    # Fine enough within its own slices, but these lie across those of the scan.
    sagittal = scan(grid_affine("ASR", (0.9, 0.9, 4), (40, 40, 10)), (40, 40, 10), "t1")
    with pytest.raises(ValueError, match=r"coarser than.*a sample every \[4\.0, 0\.9\] mm"):
        ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": sagittal})


def test_a_guide_between_the_two_spacings_is_taken_with_a_warning():
    lr_affine, affine = grid_affine("RAS", (2, 2, 4), (20, 20, 10)), grid_affine("SRA", (1.5, 1.5, 1.5), (40, 40, 40))
    entry = {"lr": scan(lr_affine, (20, 20, 10), "t2"), "guide": scan(affine, (40, 40, 40), "t1")}
    with pytest.warns(UserWarning, match=r"t1\.nii.*every \[1\.5, 1\.5\] mm.*t2\.nii.*every \[1\.0, 1\.0\].*no detail"):
        ResampleGuided("guide", "lr", IN_PLANE)(entry)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "IRP"])
def test_a_guide_that_does_not_cover_the_tissue_is_refused_with_what_is_missing(codes):
    lr = full(grid_affine("RAS", (2, 2, 4), (20, 20, 10), centre=(0, 0, 0)), (20, 20, 10), "t2")
    # Slices at -18 to 18 mm; the guide ends at 4 mm (1 mm voxels to 3.5 mm and their half).
    guide = full(grid_affine(codes, (1, 1, 1), (60, 60, 60), centre=(0, 0, -26)), (60, 60, 60), "t1")
    said = (
        r"t1\.nii.*covers 60\.0% of the tissue of .*t2\.nii.*at least 95%.*by up to 14\.0 mm to S\. .*--register true"
    )
    with pytest.raises(ValueError, match=said):
        ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": guide})
    ResampleGuided("guide", "lr", IN_PLANE, coverage=0.6)({"lr": lr, "guide": guide})


def test_scans_that_do_not_overlap_are_refused():
    lr_affine = grid_affine("RAS", (2, 2, 4), (20, 20, 10))
    affine = grid_affine("RAS", (1, 1, 1), (50, 50, 50), centre=CENTRE - (300, 0, 0))
    entry = {"lr": scan(lr_affine, (20, 20, 10), "t2"), "guide": scan(affine, (50, 50, 50), "t1")}
    with pytest.raises(ValueError, match=r"t1\.nii.*covers 0\.0%.*t2\.nii.*do not overlap at all.* mm to R"):
        ResampleGuided("guide", "lr", IN_PLANE)(entry)
    with pytest.raises(ValueError, match=r"t1\.nii.*cannot be registered to .*t2\.nii.*share no tissue"):
        ResampleGuided("guide", "lr", IN_PLANE, register=True)(entry)


def test_registration_puts_a_moved_guide_back_and_reports_its_quality(tmp_path):
    lr_affine = grid_affine("RAS", (2, 2, 3), (36, 36, 22))
    affine = grid_affine("LSA", (1, 1, 1), (80, 80, 80), (4, -3, 9))
    guide = scan(affine, (80, 80, 80), "t1", lambda world: (1.2 - subject(world)) * (subject(world) > 0.05))
    lr = scan(lr_affine, (36, 36, 22), "t2")
    straight = ResampleGuided("guide", "lr", IN_PLANE)({"lr": lr, "guide": guide})["guide"]
    moved = ShiftGuided("guide", 2.5)({"guide": guide})
    out = ResampleGuided("guide", "lr", IN_PLANE, register=True, quality_dir=tmp_path)({**moved, "lr": lr})["guide"]
    off = ResampleGuided("guide", "lr", IN_PLANE)({**moved, "lr": lr})["guide"]
    error, without = (float((v - straight).as_tensor().square().mean().sqrt()) for v in (out, off))
    assert error < 0.25 * without
    quality = json.loads((tmp_path / "t2_registration.json").read_text())
    assert quality["mutual_information_after"] > quality["mutual_information_before"] > 0
    assert np.allclose(np.abs(quality["translation_mm"]), 2.5, atol=0.4)


def test_auto_registers_a_guide_that_lies_elsewhere_and_no_other(tmp_path, monkeypatch):
    lr_affine = grid_affine("RAS", (2, 2, 3), (36, 36, 22))
    affine = grid_affine("LSA", (1, 1, 1), (80, 80, 80), (4, -3, 9))
    guide = scan(affine, (80, 80, 80), "t1", lambda world: (1.2 - subject(world)) * (subject(world) > 0.05))
    entry = {"lr": scan(lr_affine, (36, 36, 22), "t2"), "guide": guide}
    auto, straight = (
        ResampleGuided("guide", "lr", IN_PLANE, register=r, quality_dir=tmp_path) for r in ("auto", False)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(auto(entry)["guide"].as_tensor(), straight(entry)["guide"].as_tensor())
    assert not list(tmp_path.iterdir())
    moved = {**entry, **ShiftGuided("guide", 2.5)({"guide": guide})}
    with pytest.warns(
        UserWarning, match=r"^guide registered, 4\.\d mm .*t1\.nii\.gz did not lie on .*t2\.nii\.gz: a step"
    ):
        found = auto(moved)["guide"]
    forced = ResampleGuided("guide", "lr", IN_PLANE, register=True)(moved)["guide"]
    assert torch.allclose(found.as_tensor(), forced.as_tensor(), atol=1e-4)
    assert json.loads((tmp_path / "t2_registration.json").read_text())["similarity"] > 0
    # A registration that ends elsewhere, as with another person's guide, is not believed.
    wrong = from_matvec(np.eye(3), [0, 6, 0]) @ affine
    monkeypatch.setattr(guides, "register_guide", lambda *_: (wrong, {}))
    with pytest.raises(
        ValueError, match=r"t1\.nii\.gz: the guide cannot be brought onto .*t2\.nii.* Leave the guide out"
    ):
        auto(moved)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        ImportError, match=r"t1\.nii\.gz: the guide does not lie on .*needs SimpleITK.*--register false"
    ):
        auto(moved)
    with pytest.raises(ValueError, match="register is 'perhaps'"):
        ResampleGuided("guide", "lr", IN_PLANE, register="perhaps")


def test_a_subjects_guide_is_shifted_the_same_way_in_any_order_and_run():
    affine = grid_affine("PIR", (1, 2, 3), (4, 4, 4), (10, 20, 30))
    shift = ShiftGuided("guide", 1.5)

    def moved(name, **entry):
        before = scan(affine, (4, 4, 4), name)
        after = shift({"guide": before, **entry})["guide"]
        assert torch.equal(after.as_tensor(), before.as_tensor()) and np.array_equal(before.affine, affine)
        assert np.array_equal(after.affine[:, :3], affine[:, :3])
        return tuple((after.affine.numpy() - affine)[:3, 3].round(9))

    subjects = [f"sub-{n:02d}" for n in range(1, 41)]
    first = [moved("t1", subject=s) for s in subjects]
    assert [moved("other", subject=s) for s in reversed(subjects)] == first[::-1]
    assert set(np.abs(first).ravel()) == {1.5} and len(set(first)) == 8, "each axis goes either way"
    # The same in every process, unlike hash().
    assert first[0] == (1.5, -1.5, -1.5)
    assert len({moved(f"{s}_t1") for s in subjects}) == 8, "without a subject, the file's name says which it is"
    still = ShiftGuided("guide", 0)({"guide": scan(affine, (4, 4, 4), "t1")})["guide"]
    assert np.array_equal(still.affine, affine)
