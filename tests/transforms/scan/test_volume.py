"""From a file to slabs and back: place, orientation, units, range and data type; and files that are refused."""

import re
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Spacingd
from nibabel.affines import from_matvec
from scipy.ndimage import map_coordinates

from common.degradations import ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
from common.geometry.affines import find_slice_permutation
from common.metrics import interpolate_cubic
from common.transforms import CheckHeaderd, CheckVoxelsd, LoadScand, ResizePlanesd, SaveVolumed
from common.transforms.scan.volume import MakeLRd, NormaliseVolumed, RestoreVolumed, SliceAxisd
from tests.bundles import runs
from tests.refused import refused
from tests.transforms import grids
from tests.transforms.grids import ORIENTATIONS, along, centre_of_mass, doubled, super_resolve, told, world_of

SPACING, SIZE = (0.9, 1.1, 2.0), (14, 16, 12)
TRUNCATION, BLOCKS, IN_PLANE = KSpaceTruncation((2, 2, 2)), GaussianProfile((2, 2, 2)), KSpaceTruncation((2, 2, 1))


def affine_of(codes, tilt=0.0):
    tilts = (tilt, -0.7 * tilt, 0.4 * tilt)
    return grids.affine_of(codes, along(codes, SPACING), tilts, (-31.5, 17.25, -60.125))


def save(path, data, affine=None, sform=1, qform=1, units=("mm", "sec"), moved=0, **fields):
    """Write NIfTI with a qform that is moved by some mm, and header fields as they are, past all checks."""
    affine = affine_of("RAS") if affine is None else affine
    header = nib.Nifti1Image(data, affine, dtype=data.dtype).header
    header.set_sform(affine, sform)
    header.set_qform(from_matvec(np.eye(3), [0, moved, 0]) @ affine, qform)
    header.set_xyzt_units(*units)
    image = nib.Nifti1Image(data, None, header)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def nifti(path, shape=(5, 6, 7), dtype=np.int16, **header):
    return save(path, np.arange(np.prod(shape)).reshape(shape).astype(dtype), **header)


def volume(values=None, affine=None):
    values = torch.rand(1, 5, 6, 7) if values is None else values
    return MetaTensor(values, affine=affine, meta={"filename_or_obj": "/data/a.nii"})


@pytest.mark.parametrize("slice_axis", ["SI", "AP", "LR"])
def test_slabs_lie_across_the_axis_and_no_voxel_moves_in_any_orientation(slice_axis):
    order = [axis for axis in ("LR", "AP", "SI") if axis != slice_axis] + [slice_axis]
    out_codes = tuple({"LR": "R", "AP": "A", "SI": "S"}[axis] for axis in order)  # to the right, anterior, superior
    for codes, tilt in [*((c, 0) for c in ORIENTATIONS), *((c, t) for c in ("RAS", "PIL", "SRP") for t in (17, -35))]:
        affine, shape = affine_of(codes, tilt), along(codes, SIZE)
        before = torch.arange(np.prod(shape), dtype=torch.float64).reshape(1, *shape)
        out = SliceAxisd("x", slice_axis)({"x": MetaTensor(before, affine=affine)})["x"]
        assert tuple(out.shape[1:]) == along(out_codes, SIZE) and out.is_contiguous()
        assert nib.aff2axcodes(out.affine.numpy()) == out_codes
        for value in (0, 7, 1234, 2687):
            old, new = (np.argwhere(v.numpy()[0] == value)[0] for v in (before, out))
            assert np.allclose(out.affine.numpy() @ [*new, 1], affine @ [*old, 1], atol=1e-9)


def test_slices_are_told_by_their_spacing_in_any_orientation_and_not_where_none_stands_out():
    for spacing, axis in [((0.5, 0.5, 6), 2), ((2.4, 2, 1), 2), ((1.5, 1, 1), 0), ((0.9, 3, 1), 1), ((1, 1, 0.5), 2)]:
        for codes in ORIENTATIONS:
            affine, name = grids.affine_of(codes, spacing, (20, -14, 8)), along(codes, ("LR", "AP", "SI"))[axis]
            assert find_slice_permutation(affine, "auto") == find_slice_permutation(affine, name)
    for spacing in ([1.0, 1.0, 1.0], [1.2, 1.0, 1.0], [1.0, 1.0, 1.4], [1.0, 1.5, 2.0]):
        entry = {"x": volume(affine=np.diag([*spacing, 1]))}
        refused(lambda entry=entry: SliceAxisd("x", "auto")(entry), ValueError, "a.nii", spacing, "--slice_axis SI")


@pytest.mark.parametrize(
    "axis, degradation", [("SI", TRUNCATION), ("AP", GaussianProfile((2, 2, 1))), ("LR", IN_PLANE)]
)
def test_a_scan_gives_one_result_in_its_place_however_it_is_stored(tmp_path, axis, degradation):
    middle = np.array((0.4, 0.55, 0.45)) * (np.array(SIZE) - 1)
    blob = np.exp(-((world_of(np.eye(4), SIZE) - middle) ** 2).sum(-1) / (2 * 1.7**2))
    scan = nib.Nifti1Image((1000 * blob).astype(np.float32), affine_of("RAS", 20))
    seen = []

    def network(lr):
        seen.append(lr)
        return interpolate_cubic(lr[None], degradation.factors, degradation.offset)[0]

    expected = None
    for codes in ["RAS", *ORIENTATIONS]:
        nib.save(grids.stored_as(scan, codes), tmp_path / f"{codes}.nii")
        image = super_resolve(tmp_path / f"{codes}.nii", tmp_path / "out", degradation, network, axis)
        assert nib.aff2axcodes(image.affine) == tuple(codes)
        found = nib.as_closest_canonical(image)
        expected = expected or found
        assert torch.equal(seen[-1], seen[0])
        np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())
        np.testing.assert_allclose(found.affine, expected.affine, rtol=0, atol=2e-5)
    factors = np.where([axis == other for other in ("LR", "AP", "SI")], degradation.factors[2], 2)
    assert expected.shape == tuple(np.array(SIZE) * factors)
    assert np.allclose(nib.affines.voxel_sizes(expected.affine) * factors, SPACING)
    moved = centre_of_mass(expected.get_fdata(), expected.affine) - centre_of_mass(blob, scan.affine)
    assert np.linalg.norm(moved) < 0.1 * min(SPACING) / 2
    assert expected.get_fdata().max() == pytest.approx(1000 * blob.max(), rel=0.1)
    if isinstance(degradation, KSpaceTruncation):  # LR voxel 0 lies on HR voxel 0
        np.testing.assert_allclose(expected.affine[:, 3], scan.affine[:, 3], atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*no orientation")
def test_range_data_type_units_and_form_codes_come_back_and_what_lies_beyond_is_cut_off(tmp_path):
    for stored, low, high, expected, header in [
        ("i2", -1024, 3000, "i2", {}),
        ("u1", 0, 255, "u1", {"sform": 4, "units": ("mm", "msec")}),
        ("u2", 0, 60_000, "u2", {"sform": 2, "qform": 0, "units": ("unknown", "unknown")}),
        ("i4", -5, 70_000, "i4", {"sform": 0}),
        ("i8", 0, 4000, "i8", {"sform": 0, "qform": 0, "units": ("mm", "unknown")}),
        (">i2", -100, 900, "i2", {}),
        ("f4", 0.0, 1.5e-3, "f4", {}),
        ("f8", -3.5, 1e5, "f4", {}),
        ("i2", -2000, 2000, "i2", {"scl_slope": 0.25, "scl_inter": 100.0}),
    ]:
        data = np.random.default_rng(0).uniform(low, high, along("PIR", SIZE))
        data.flat[:2] = low, high
        source = save(tmp_path / "scan.nii.gz", data.astype(stored), affine_of("PIR", 12), **header)
        image = super_resolve(source, tmp_path / "out", BLOCKS)
        assert image.get_data_dtype() == np.dtype(expected)
        tolerances = (1e-5, 1e-6 * (high - low)) if expected == "f4" else (0, 0)
        assert np.allclose(image.dataobj, doubled(torch.from_numpy(nib.load(source).get_fdata())), *tolerances)
        codes = header.get("sform", 1), header.get("qform", 1)
        assert (image.header["sform_code"], image.header["qform_code"]) == codes
        assert image.header.get_xyzt_units() == header.get("units", ("mm", "sec"))
    # Values beyond what the type or the input holds are cut off.
    data = np.random.default_rng(0).integers(10, 255, (6, 6, 6)).astype(np.uint8)

    def overshooting(lr):
        sr = doubled(lr)
        sr[..., 0, 0, 0], sr[..., 1, 0, 0] = 1.5, -0.5
        return sr

    voxels = super_resolve(save(tmp_path / "scan.nii", data), tmp_path / "out", BLOCKS, overshooting).dataobj
    assert voxels[0, 0, 0] == 255 and voxels[1, 0, 0] == data.min() == 10


@pytest.mark.parametrize("stored", [np.int16, np.uint8])
def test_what_lies_beyond_scaled_integers_is_kept(stored, tmp_path):
    """A file scaled to its own range has no integer left for edges that are brighter, nor 8 bits enough for tissue."""
    image = nib.Nifti1Image(np.random.default_rng(0).random((6, 6, 6)).astype(np.float32), np.eye(4))
    image.set_data_dtype(stored)
    nib.save(image, tmp_path / "scan.nii")
    expected = doubled(torch.from_numpy(nib.load(tmp_path / "scan.nii").get_fdata()))
    expected[0, 0, 0] = 1.3
    sr = super_resolve(tmp_path / "scan.nii", tmp_path / "out", BLOCKS, lambda lr: _brighten(doubled(lr), lr))
    assert sr.get_data_dtype() == np.int16
    np.testing.assert_allclose(sr.get_fdata()[1:], expected[1:], atol=1.5 / 65000)
    assert sr.get_fdata()[0, 0, 0] > 1.1


def _brighten(sr, lr):
    sr[..., 0, 0, 0] = 1.3 * lr.max()
    return sr


def test_normalising_maps_0_and_the_999th_thousandth_and_clips_nothing():
    values = torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0)) * 500 + 100
    values[0, 0, 0, 0] = 5000
    image = volume(values.clone())
    out = NormaliseVolumed("x")({"x": image})["x"]
    assert torch.allclose(torch.as_tensor(out), values / np.quantile(values.numpy(), 0.999), atol=1e-6)
    assert out.max() > 7 and torch.equal(image.as_tensor(), values) and "intensity_range" not in image.meta
    negative = NormaliseVolumed("x")({"x": MetaTensor(values - 700)})["x"]
    assert negative.min() == 0 and np.quantile(negative.numpy(), 0.999) == pytest.approx(1, abs=1e-5)
    # Where few voxels are bright, the brightest becomes 1.
    values = torch.zeros(1, 20, 20, 20)
    values[0, 3, 4, 5:7] = torch.tensor([40.0, 20.0])
    out = NormaliseVolumed("x")({"x": MetaTensor(values)})["x"]
    assert out.max() == 1 and out[0, 3, 4, 6] == 0.5 and out.min() == 0


@pytest.mark.parametrize("lowest", [-300, 0, 50])
def test_the_maximum_may_become_1_instead_and_the_file_s_values_come_back(lowest):
    values = torch.rand(1, 20, 18, 16, generator=torch.Generator().manual_seed(0)) * 500 + lowest
    values[0, 0, 0, 0] = 5000
    for axes in ("RAS", "LSP"):
        scan = volume(values.clone(), affine_of(axes, 0))
        load = Compose([SliceAxisd("image"), NormaliseVolumed("image", scaled_by="maximum")])
        entry = load({"image": scan})
        out = entry["image"]
        assert out.max() == 1 and out.min() == pytest.approx(max(lowest, 0) / 5000, abs=1e-3)
        entry["pred"] = MetaTensor(out.as_tensor(), affine=out.affine)
        torch.testing.assert_close(RestoreVolumed("pred")(entry)["pred"].as_tensor(), values, rtol=0, atol=1e-3)
    refused(lambda: NormaliseVolumed("x", scaled_by="full"), ValueError, "'full'", "percentile or maximum")


def test_missing_keys_are_passed_over_where_that_is_allowed():
    more = partial(ResizePlanesd, spacing=(1.0, 1.0)), partial(MakeLRd, degradation=TRUNCATION)
    for transform in (SliceAxisd, NormaliseVolumed, CheckHeaderd, CheckVoxelsd, *more):
        assert transform(["hr", "lr"], allow_missing_keys=True)({"other": 1}) == {"other": 1}
        refused(lambda transform=transform: transform(["hr", "lr"])({"other": 1}), KeyError, "hr")


@pytest.mark.parametrize("degradation", [IN_PLANE, GaussianProfile((2, 3, 4))], ids=str)
def test_a_missing_lr_volume_is_made_from_hr(degradation):
    affine = affine_of("SPL", 20)
    hr = volume(torch.rand(1, 13, 14, 9), affine)
    out = MakeLRd("hr", degradation)({"hr": hr})
    x, y, z = (n // f * f for n, f in zip((13, 14, 9), degradation.factors, strict=True))
    assert torch.equal(out["hr"].as_tensor(), hr.as_tensor()[:, :x, :y, :z])
    assert np.allclose(out["hr"].affine, affine)
    assert np.allclose(out["lr"].affine, degradation.compute_lr_affine(affine))
    assert torch.allclose(out["lr"].as_tensor(), degradation(out["hr"].as_tensor()), atol=1e-6)
    assert out["lr"].meta["filename_or_obj"] == "/data/a.nii" and hr.shape == (1, 13, 14, 9)
    noisy = ComposeDegradations([degradation, RicianNoise(0.01)])
    assert MakeLRd("hr", noisy, like=degradation).degradation is noisy


def own_lr(place=(2, 2, 2), origin=(0, 0, 0), degradation=TRUNCATION):
    affine = from_matvec(np.diag(place), origin)
    entry = {"hr": volume(torch.rand(1, 9, 8, 6)), "lr": volume(torch.rand(1, 4, 4, 3), affine)}
    return entry, MakeLRd("hr", degradation)(entry)


def test_an_lr_volume_is_kept_where_it_lies_on_hr_in_the_world(tmp_path):
    """LR made from HR in the world's order is taken however both are stored, LR made in a mirrored file's is not."""
    entry, out = own_lr()
    assert out["lr"] is entry["lr"] and out["hr"].shape == (1, 8, 8, 6)
    load, make = LoadScand(["hr", "lr"], "SI"), MakeLRd("hr", TRUNCATION)
    rng = np.random.default_rng(0)
    hr = nib.Nifti1Image(rng.random((8, 10, 12), dtype=np.float32), affine_of("RAS", 10))
    lr = nib.Nifti1Image(rng.random((4, 5, 6), dtype=np.float32), TRUNCATION.compute_lr_affine(hr.affine))
    mirrored = grids.stored_as(hr, "LPS")
    own = nib.Nifti1Image(lr.get_fdata(dtype=np.float32), TRUNCATION.compute_lr_affine(mirrored.affine))
    for name, image in {"hr": mirrored, "lr": grids.stored_as(lr, "SAL"), "own": own}.items():
        nib.save(image, tmp_path / f"{name}.nii")
    out = make(load({"hr": tmp_path / "hr.nii", "lr": tmp_path / "lr.nii"}))
    assert out["hr"].shape == (1, 8, 10, 12) and out["lr"].shape == (1, 4, 5, 6)
    loaded = load({"hr": tmp_path / "hr.nii", "lr": tmp_path / "own.nii"})
    refused(lambda: make(loaded), ValueError, "the first voxel by 0.50 LR voxels")


def check_voxels(values):
    return CheckVoxelsd("image")({"image": values})


LABELS = doubled(doubled(torch.randint(0, 5, (1, 6, 6, 6), generator=torch.Generator().manual_seed(0)).float()))


def thin_labels():
    """Points, a line and planes of labels in an empty field, which are no neighbours along one axis at least."""
    points, line, planes = torch.zeros(3, 1, 40, 40, 40)
    for n in range(1, 9):
        points[0, 17 + n % 3, 20, 4 * n + 1] = line[0, 18 + n % 2, 20, 4 * n : 4 * n + 4] = n
        planes[0, 21, 10:20, 4 * n : 4 * n + 3] = n
    return points, line, planes


def check_planes(spacing, expected=(2.5, 2.5), tilt=0):
    lr = volume(affine=grids.affine_of("LAS", spacing, (tilt, -0.7 * tilt, 2 * tilt)))
    assert torch.allclose(ResizePlanesd("lr", expected)({"lr": lr})["lr"].pixdim[:2], torch.tensor(expected).double())


def test_refused():
    for call, words in [
        (lambda: SliceAxisd("x", "z")({"x": volume()}), ["a.nii", "slice_axis", "'z'", "LR, AP, SI, auto"]),
        # On another grid than that of the networks, results would be displaced.
        (lambda: MakeLRd("hr", GaussianProfile((2, 2, 2)), like=TRUNCATION), ["scan_degradation"]),
        (lambda: MakeLRd("hr", IN_PLANE, like=TRUNCATION), ["scan_degradation", [2, 2, 1], [2, 2, 2]]),
        (lambda: own_lr(degradation=IN_PLANE), [(4, 4, 3), (8, 8, 6), (4, 4, 6)]),
        # The same voxels stored from the other side; moved by half a voxel; of another size.
        (lambda: own_lr((-2, 2, 2), (6, 0, 0)), ["off by 2.00", "voxel by 3.00", "[2, 2, 2] * i + [0"]),
        (lambda: own_lr(origin=(0, 0, 1)), ["off by 0.00", "voxel by 0.50"]),
        (lambda: own_lr((1, 1, 1)), ["off by 0.50", "voxel by 0.00"]),
        (lambda: check_voxels(volume(torch.full((1, 5, 6, 7), np.nan))), ["a.nii", "210 of 210", "NaN"]),
        (lambda: check_voxels(volume(torch.full((1, 5, 6, 7), 3.5))), ["a.nii", "every voxel is 3.5"]),
        (lambda: check_voxels(torch.rand(1, 5, 6, 2)), ["image: ", (5, 6, 2), "slab: 3"]),
        (lambda: check_voxels(volume()[..., :2]), [(5, 6, 2), "slab: 3"]),
        (lambda: check_voxels(volume(1.0 * (torch.rand(1, 9, 9, 9) > 0.5))), ["a.nii", "a mask", "0 or 1", "--label"]),
        (lambda: check_voxels(volume(LABELS)), ["a.nii", "a label map", "--label"]),
        *[(lambda v=v: check_voxels(volume(v)), ["a.nii", "label", "8 whole numbers"]) for v in thin_labels()],
        (lambda: check_planes((1.6, 2.5, 2.5)), ["a.nii", "[1.6, 2.5] mm", "about [2.5, 2.5] mm"]),
        (lambda: check_planes((2.5, 3.8, 2.5), tilt=10), ["a.nii", "[2.5, 3.8] mm", "about [2.5, 2.5] mm"]),
        (lambda: check_planes((1.25, 1.25, 5), tilt=10), ["a.nii", "[1.25, 1.25] mm", "about [2.5, 2.5] mm"]),
        (lambda: check_planes((1.0, 4.0, 2.0), (4.0, 1.0)), ["a.nii", "about [4.0, 1.0] mm"]),
    ]:
        refused(call, ValueError, *words)


def result_to_save(name="scan.nii.gz"):
    return {"pred": MetaTensor(torch.rand(1, 4, 4, 4), affine=np.eye(4), meta={"filename_or_obj": name})}


def test_results_are_named_by_their_inputs_subjects_or_entries(tmp_path):
    for source, entry, expected in [
        ("scan.nii.gz", {}, "scan_sr"),
        ("sub.01.nii", {}, "sub.01_sr"),
        ("pair.img", {}, "pair_sr"),
        ("series", {}, "series_sr"),
        ("a/t1.nii.gz", {"subject": "a"}, "a_t1_sr"),
        ("t1/t1.nii.gz", {"subject": "t1"}, "t1_sr"),
        ("scan.nii", {"name": "sub-1_T1w"}, "sub-1_T1w_sr"),
    ]:
        folder = tmp_path / "new" / Path(expected).name
        save_result = SaveVolumed("pred", folder, description="super-resolved " + "x" * 90)
        saved = save_result({**result_to_save(f"/data/{source}"), **entry})["saved_to"]
        assert saved == str(folder / f"{expected}.nii.gz")
        assert [path for path in folder.rglob("*") if path.is_file()] == [Path(saved)]
        assert nib.load(saved).header["descrip"].item().decode() == "super-resolved " + "x" * 65


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def half(image, path):
        path.write_bytes(b"half a file")
        raise OSError("No space left on device")

    SaveVolumed("pred", tmp_path)(result_to_save("old.nii"))
    before = (tmp_path / "old_sr.nii.gz").read_bytes()
    refused(lambda: SaveVolumed("pred", tmp_path / "old_sr.nii.gz" / "out")(result_to_save()), OSError, "old_sr.nii.gz")
    monkeypatch.setattr(nib, "save", half)
    for name in ("new.nii", "old.nii"):
        refused(lambda name=name: SaveVolumed("pred", tmp_path)(result_to_save(name)), OSError, "No space")
    assert [p.name for p in tmp_path.iterdir()] == ["old_sr.nii.gz"]
    assert (tmp_path / "old_sr.nii.gz").read_bytes() == before


TWO_SIZES = ["2.25 x 2.75 x 5 mm", "0.9 x 1.1 x 2 mm", "sform_code 0", "pixdim '1 0.9 1.1 2 1"]


def test_a_file_that_is_no_volume_is_refused_before_it_is_read(tmp_path):
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, make, kind, words in [
        ("none.nii", lambda p: None, FileNotFoundError, ["no such file"]),
        ("folder.nii", lambda p: p.mkdir(), ValueError, []),
        ("a.nii", lambda p: p.write_text("x" * 1000), ValueError, ["not a readable image"]),
        ("a.nii", lambda p: nifti(p, (20, 20)), ValueError, [(20, 20), "3-D volume"]),
        ("a.nii", lambda p: nifti(p, (20, 20, 1)), ValueError, [(20, 20, 1), "3-D volume"]),
        ("a.nii", lambda p: nifti(p, (5, 5, 5, 3)), ValueError, [(5, 5, 5, 3), "nib-roi -t 0:1 "]),
        ("a.nii", lambda p: nifti(p, (5, 5, 5, 1, 2)), ValueError, [(5, 5, 5, 1, 2)]),
        ("a.nii", lambda p: nifti(p, dtype=rgb), ValueError, ["one real number each, not colour"]),
        ("a.nii", lambda p: nifti(p, dtype=np.complex64), ValueError, ["complex64"]),
        ("a.nii", lambda p: nifti(p, qform=0, srow_x=0), ValueError, ["not invertible"]),
        ("a.nii", lambda p: nifti(p, qform=0, srow_x=np.nan), ValueError, ["nan"]),
        ("a.nii", lambda p: nifti(p, sform=0, pixdim=[1, 0, 1, 9e9] * 2), ValueError, ["pixdim[1] = 0, pixdim[3]"]),
        ("a.nii", lambda p: nifti(p, sform=0, qform=0, pixdim=[1, 1, 1, np.nan] * 2), ValueError, ["pixdim[3] = nan"]),
        ("a.nii", partial(nifti, qform=0, pixdim=[1, 2.25, 2.75, 5] * 2), ValueError, TWO_SIZES),
        ("a.nii", partial(nifti, qform=1, pixdim=[1, 2.25, 2.75, 5] * 2), ValueError, TWO_SIZES),
        ("a.nii", lambda p: nifti(p, sform=0, quatern_b=1.1), ValueError, ["quatern_b", "1.1", "length of 1"]),
        ("a.nii", lambda p: p.write_bytes(nifti(p).read_bytes() + bytes(4097)), ValueError, [4869, 772, (5, 6, 7)]),
        ("a.nii", lambda p: p.write_bytes(nifti(p).read_bytes()[:-1]), ValueError, [771, 772, (5, 6, 7)]),
    ]:
        make(tmp_path / name)
        refused(lambda path=tmp_path / name: CheckHeaderd("image")({"image": str(path)}), kind, name, *words)


def test_headers_are_mended_where_it_is_certain_what_was_meant_and_a_warning_says_so(tmp_path):
    right, turned = affine_of("RAS"), affine_of("LPS")
    for header, words in [
        ({"sform": 0, "qform": 0}, ["no orientation", "right to left, posterior to anterior", "(0.9, 1.1, 2"]),
        ({"sform": 4, "moved": 15}, ["(code 4)", "(code 1)", "15.00 mm apart", "the sform is used"]),
        ({"sform": 4, "quatern_b": 2}, ["its qform is not valid", "its sform is used"]),
        ({"sform": 4, "moved": 0.05}, []),
        ({"qform": 0, "moved": 15}, []),
        ({"sform": 0, "moved": 15}, []),
        ({"qform": 0, "quatern_b": 2}, []),
        ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, ["its sform is not valid", "its qform is used"]),
        ({"srow_y": np.nan}, ["its sform is not valid", "its qform is used"]),
        ({"srow_y": 0, "sform": 0}, []),
        ({"quatern_b": np.nan, "qoffset_x": np.inf}, ["its qform is not valid", "nan", "inf"]),
        ({"affine": turned, "sform": 0, "quatern_d": 1.0000007}, ["quaternion", "1.0000007"]),
        ({"affine": turned, "quatern_d": 1.0000007}, ["quaternion", "1.0000007"]),
        ({"pixdim": [1, 0, 1.1, 1e30, 0, 0, 0, 0], "qform": 0}, ["pixdim[1] = 0, pixdim[3] = 1e+30", "its sform"]),
        ({"pixdim": [1] * 8, "qform": 0}, ["voxels of 1 x 1 x 1", "its sform of 0.9 x 1.1 x 2; the sform is used"]),
        ({"pixdim": [1, 0.9, 1.1, 1.4] * 2, "qform": 0}, ["voxels of 0.9 x 1.1 x 1.4", "the sform is used"]),
        ({"pixdim": [1, -0.9, 1.1, -2] * 2, "sform": 0}, ["pixdim[1] = -0.9, pixdim[3] = -2; taken without the sign"]),
        ({"xyzt_units": 5}, ["code 5", "taken for mm"]),
        ({"xyzt_units": 2 + 56}, []),
        ({"units": ("micron", "sec")}, ["microns", "taken for mm"]),
        ({"affine": 1000 * right, "units": ("micron", "sec")}, ["microns; converted to mm", "0.9 x 1.1 x 2 mm"]),
        ({"affine": right / 1000, "units": ("meter", "sec"), "sform": 0}, ["metres; converted", "0.9 x 1.1 x 2 mm"]),
    ]:
        path = nifti(tmp_path / "a.nii", **header)
        result = told(lambda path=path: super_resolve(path, tmp_path, BLOCKS), *["a.nii"][: len(words)], *words)
        expected = turned if header.get("affine") is turned else right
        if header.get("sform") == 0 and "moved" in header:
            expected = from_matvec(np.eye(3), [0, header["moved"], 0]) @ right
        if "no orientation" in words:
            expected = nib.load(path).header.get_base_affine()
        np.testing.assert_allclose(result.affine, BLOCKS.compute_hr_affine(expected), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(result.header.get_zooms(), np.array(SPACING) / 2, rtol=1e-6)
        assert result.header.get_xyzt_units()[0] == "mm"
        for form, other in (("sform", "qform"), ("qform", "sform")):
            if f"its {form} is not valid" in words:
                assert result.header[f"{form}_code"] == 0 < result.header[f"{other}_code"]
    path = nifti(tmp_path / "b.nii", pixdim=[1, 0.9, 1.1, 1.4] * 2)
    told(lambda: CheckHeaderd("image")({"image": path}), "b.nii", "mm apart", "0.9 x 1.1 x 2 and 0.9 x 1.1 x 1.4 mm")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_unsigned_voxels_that_were_stored_as_signed_are_refused_and_no_others(bits):
    unsigned = torch.from_numpy(runs.phantom(0, (48, 52, 44)))[None]
    unsigned = (unsigned / unsigned.max() * 0.8 * 2**bits).round()
    half, whole = 2 ** (bits - 1), 2**bits
    wrapped = torch.where(unsigned < half, unsigned, unsigned - whole)
    refused(lambda: check_voxels(volume(wrapped)), ValueError, "a.nii", f"{bits} bits", f"Add {whole} ", "negative")
    # Phase in the whole range, masked or not; a fill value with hot voxels; an image with a sign.
    x, y, _ = torch.meshgrid(*(torch.arange(n) / 8.0 for n in unsigned.shape[1:]), indexing="ij")
    phase = torch.remainder(x + 3 * torch.sin(y), 2)[None] * (half - 0.5) - half + 0.5
    filled = torch.where(unsigned < whole / 20, -half, unsigned / 2)
    filled[0, 20, 20, 20] = half - 1
    for values in (phase.round(), (phase * (unsigned > whole / 20)).round(), filled, unsigned - half):
        assert check_voxels(volume(values)) is not None


def test_what_passes_the_checks(tmp_path):
    """Volumes that are no files; a few bytes after a NIfTI's voxels; FreeSurfer's files with a history after them."""
    entry = {"image": volume(), "other": 5}
    assert CheckHeaderd("image")(entry) == entry
    assert CheckVoxelsd("image")(entry) == entry and check_voxels(volume()[..., :3])
    # Eight bits of a smooth scan, and that enlarged by nearest neighbours; a label map with noise.
    scan = torch.from_numpy(runs.phantom(0, (24, 26, 22)))[None]
    eight = (scan / scan.max() * 255).round()
    enlarged = eight.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    # A small brain with few values in a wide field, and one slice of it.
    wide = torch.nn.functional.pad((eight / 8).round() * (eight > 80), [40] * 6)
    slice_only = torch.zeros_like(wide).index_copy(3, torch.tensor([51]), wide[..., 51:52])
    assert wide.count_nonzero() < 0.02 * wide.numel() and len(wide.unique()) < 32
    for values in (eight, enlarged, LABELS + torch.rand(LABELS.shape), wide, slice_only):
        assert check_voxels(volume(values)) is not None
    # Planes within a factor of 1.5 on each axis, whatever the slices' distance.
    check_planes((2.5, 2.5, 9))
    check_planes((1.7, 3.7, 1), tilt=10)
    check_planes((1.0, 4.0, 2.0), (1.0, 4.0))
    nifti(tmp_path / "a.nii")
    nib.save(nib.MGHImage(np.zeros((8, 9, 7), dtype=np.float32), np.eye(4)), tmp_path / "a.mgh")
    for name, more in (("a.nii", 4096), ("a.mgh", 10_000)):
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(more))
        assert CheckHeaderd("image")({"image": tmp_path / name})


@pytest.mark.parametrize("spacing", [(2.7, 2.7, 2.7), (2.6, 2.4, 5)])
@pytest.mark.parametrize("codes, tilt", [("RAS", 0), ("RAS", 10), ("LPS", 0), ("LAI", 10)])
def test_spacingd_as_the_bundles_use_it_resizes_planes_with_splines_about_the_first_voxel(codes, spacing, tilt):
    # Without align_corners=False MONAI would stretch the planes to fit, and scale_extent would move the first voxel.
    how = {"mode": 3, "padding_mode": "nearest", "align_corners": False}
    resize = Spacingd("lr", [2.5, 2.5, -1], **how, allow_missing_keys=True)
    affine = grids.affine_of(codes, spacing, (tilt, -0.7 * tilt, 2 * tilt), (-123.4, 56.7, -89.1))
    lr = volume(torch.rand(1, 31, 40, 9), affine)
    out = resize({"lr": lr})["lr"]
    ratio = np.array([2.5 / spacing[0], 2.5 / spacing[1], 1])
    assert np.allclose(out.affine, affine * [*ratio, 1], rtol=0, atol=1e-6), "the first voxel stays, spacing is exact"
    index = np.moveaxis(world_of(np.diag([*ratio, 1]), out.shape[1:]), -1, 0)
    truth = map_coordinates(lr.numpy()[0].astype(float), index, order=3, mode="nearest")
    assert np.abs(out.numpy()[0] - truth).max() < 1e-5 and out.meta["filename_or_obj"] == "/data/a.nii"
    # The last voxels lie within half a voxel of where they did.
    assert out.shape[3] == 9 and np.abs(index[:, -1, -1, -1] - (30, 39, 8)).max() <= 0.5
    # A right spacing is taken bit for bit, and a missing scan is missing.
    right = volume(torch.rand(1, 8, 9, 4), affine @ np.diag([2.5001 / spacing[0], 2.4999 / spacing[1], 1, 1]))
    out = resize({"lr": right})["lr"]
    assert torch.equal(out.as_tensor(), right.as_tensor()) and torch.equal(out.affine, right.affine)
    assert resize({"hr": 1}) == {"hr": 1}


@pytest.mark.parametrize("air", [0, -1000])
def test_voxels_that_are_not_finite_are_air_outside_of_tissue_alone(air):
    place = world_of(np.eye(4), (20, 21, 22))
    ball, hole = (np.linalg.norm(place - (10, 10, z), axis=-1) < radius for z, radius in ((0, 8), (4, 2.5)))
    fold = np.zeros_like(ball)
    fold[9:11, 12:] = True
    for value, where, tissue in [
        (np.nan, np.s_[0, 0, 21], ""),
        (np.inf, np.s_[15:, :, 12:], ""),
        (np.nan, ~ball | fold, ""),
        (-np.inf, np.s_[10, 14, 4], "1"),
        (np.nan, np.s_[10, 10, 4], "1"),  # in the dark hollow
        (np.nan, np.s_[10, 10, 0], "1"),  # where tissue is cut off by the border
        (np.nan, np.s_[:, 9, :], r"[1-9]\d+"),  # a slice is lost
    ]:
        values = np.where(ball & ~hole, 500, air) + 30 * np.random.default_rng(0).random(ball.shape)
        values[where] = value
        image = volume(torch.from_numpy(values)[None])
        words = "a.nii", f"{np.sum(~np.isfinite(values))} of 9240 voxels are NaN or infinite"
        if tissue:
            message = refused(lambda image=image: check_voxels(image), ValueError, *words)
            assert re.search(f", {tissue} of them in tissue", message)
            continue
        out = told(lambda image=image: check_voxels(image), *words)["image"]
        expected = np.where(np.isfinite(values), values, min(np.min(values[np.isfinite(values)]), 0))
        np.testing.assert_array_equal(out[0], expected)
        assert out.meta["filename_or_obj"] == "/data/a.nii" and not torch.isfinite(image).all()


@pytest.mark.parametrize("name, more", [("scan.nii", (1,)), ("SCAN.NII", (1, 1)), ("SCAN.NII.GZ", (1,))])
def test_one_volume_of_more_axes_is_a_volume_whatever_the_case_of_its_name(tmp_path, name, more):
    shape = (6, 7, 8, *more)
    nifti(tmp_path / name.lower(), shape).rename(tmp_path / name)
    image = told(lambda: super_resolve(tmp_path / name, tmp_path, BLOCKS), name, shape)
    assert image.get_filename() == str(tmp_path / f"{name.split('.')[0]}_sr.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.dataobj, doubled(torch.arange(6 * 7 * 8).reshape(6, 7, 8)))
