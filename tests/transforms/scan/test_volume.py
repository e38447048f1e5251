"""From a file to slabs and back: place, orientation, units, range and data type; and files that are refused."""

import itertools
import os
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from common.data import CaseLoader, find_images
from common.degradations import (
    BlockAverage,
    ComposeDegradations,
    GaussianProfile,
    KSpaceTruncation,
    RicianNoise,
)
from common.engines import CaseEvaluator
from common.geometry import slice_permutation
from common.metrics import cubic
from common.transforms import (
    CheckHeaderd,
    CheckVoxelsd,
    LoadScand,
    MakeLRd,
    NormaliseVolumed,
    RestoreVolumed,
    SaveVolumed,
    SliceAxisd,
)

SPACING = {"LR": 0.9, "AP": 1.1, "SI": 2.0}
SIZE = {"LR": 14, "AP": 16, "SI": 12}
AXES = {"L": "LR", "R": "LR", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
ORIENTATIONS = [
    "".join(codes) for order in itertools.permutations(["RL", "AP", "SI"]) for codes in itertools.product(*order)
]


def affine_of(codes, tilt=0.0):
    """A scanner's affine whose axes point as ``codes`` say, tilted by some degrees about oblique axes."""
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for column, ((axis, sign), code) in enumerate(zip(ornt, codes, strict=True)):
        affine[int(axis), column] = sign * SPACING[AXES[code]]
    affine[:3, :3] = (
        Rotation.from_euler("xyz", [tilt, -0.7 * tilt, 0.4 * tilt], degrees=True).as_matrix() @ affine[:3, :3]
    )
    affine[:, 3] = (-31.5, 17.25, -60.125, 1)
    return affine


def shape_of(codes):
    return tuple(SIZE[AXES[code]] for code in codes)


def blob(shape, centre=(0.4, 0.55, 0.45), width=2.0):
    """A smooth blob away from the borders, 0 to 1."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    middle = np.array(centre) * (np.array(shape) - 1)
    return np.exp(-((index - middle) ** 2).sum(-1) / (2 * width**2))


def centre_of_mass(data, affine):
    """In world coordinates."""
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), axis=-1)
    return affine[:3, :3] @ ((index * data[..., None]).sum((0, 1, 2)) / data.sum()) + affine[:3, 3]


def save(path, data, affine=None, **header):
    """Write NIfTI; ``header`` sets form codes, units and scaling."""
    affine = affine_of("RAS") if affine is None else affine
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_sform(affine, header.get("sform", 1))
    image.set_qform(affine, header.get("qform", 1))
    image.header.set_xyzt_units(*header.get("units", ("mm", "sec")))
    if "slope" in header:
        image.header.set_slope_inter(header["slope"], header["inter"])
    nib.save(image, path)
    return path


def super_resolve(source, output_dir, degradation, network, slice_axis="SI"):
    """As the bundle's inference does: cases, a network for volumes, restored and saved."""
    dataset = Dataset(find_images(str(source)), LoadScand("image", slice_axis))
    post = Compose([RestoreVolumed("pred", "image", degradation), SaveVolumed("pred", output_dir)])
    CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=CaseLoader(dataset),
        network=torch.nn.Identity(),
        inferer=lambda volume, _: network(torch.as_tensor(volume)),
        postprocessing=post,
    ).run()
    return nib.load(output_dir / f"{source.name.removesuffix('.gz').removesuffix('.nii')}_sr.nii.gz")


def stored_as(image, codes):
    """An image of R, A, S order with its axes stored in another order and direction."""
    orientation = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation))


def repeated(factors):
    """Nearest-neighbour interpolation, which is in place where LR voxels are blocks of HR voxels."""

    def network(lr):
        for axis, factor in enumerate(factors):
            lr = lr.repeat_interleave(factor, dim=axis - 3)
        return lr

    return network


@pytest.mark.parametrize("slice_axis", ["SI", "AP", "LR"])
def test_slabs_lie_across_the_axis_and_no_voxel_moves_in_any_orientation(slice_axis):
    order = [axis for axis in SIZE if axis != slice_axis] + [slice_axis]
    for codes, tilt in [*((c, 0) for c in ORIENTATIONS), *((c, t) for c in ("RAS", "PIL", "SRP") for t in (17, -35))]:
        affine, shape = affine_of(codes, tilt), shape_of(codes)
        volume = torch.arange(np.prod(shape), dtype=torch.float64).reshape(1, *shape)
        out = SliceAxisd("x", slice_axis)({"x": MetaTensor(volume, affine=affine)})["x"]
        assert tuple(out.shape[1:]) == tuple(SIZE[axis] for axis in order) and out.is_contiguous()
        # To the right, anterior, superior.
        assert nib.aff2axcodes(out.affine.numpy()) == tuple({"LR": "R", "AP": "A", "SI": "S"}[axis] for axis in order)
        for value in (0, 7, 1234, 2687):
            before, after = (np.argwhere(v.numpy()[0] == value)[0] for v in (volume, out))
            world = out.affine.numpy() @ [*after, 1]
            assert np.allclose(world, affine @ [*before, 1], atol=1e-9)


def test_a_slice_axis_that_is_none_is_refused():
    with pytest.raises(ValueError, match="slice_axis is 'z', expected one of LR, AP, SI, auto"):
        SliceAxisd("x", "z")({"x": MetaTensor(torch.rand(1, 3, 3, 3), affine=np.eye(4))})


@pytest.mark.parametrize(
    ("spacing", "slices"),
    [((0.45, 0.45, 6), 2), ((2.4, 2, 1), 2), ((1.5, 1, 1), 0), ((0.9, 3, 1), 1), ((1, 1, 0.5), 2)],
)
def test_slices_are_told_by_their_spacing_in_any_orientation(spacing, slices):
    for codes in ORIENTATIONS:
        affine = affine_of(codes, 20)
        affine[:3, :3] *= np.array(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
        assert slice_permutation(affine, "auto") == slice_permutation(affine, AXES[codes[slices]])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.2, 1, 1), (1, 1, 1.4), (1, 1.5, 2)])
def test_slices_that_the_spacing_does_not_tell_are_to_be_named(spacing):
    image = MetaTensor(torch.rand(1, 3, 3, 3), affine=np.diag([*spacing, 1.0]), meta={"filename_or_obj": "a.nii"})
    said = rf"a\.nii: the spacing \[{', '.join(str(float(s)) for s in spacing)}\] mm.*--slice_axis SI"
    with pytest.raises(ValueError, match=said):
        SliceAxisd("x", "auto")({"x": image})


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 2)), BlockAverage((2, 2, 1))], ids=str)
def test_every_orientation_comes_back_in_its_place(tmp_path, degradation):
    def network(lr):
        return cubic(lr, degradation.factors, degradation.offset)

    for codes, tilt, slice_axis in [
        *((c, 0, "SI") for c in ORIENTATIONS),
        *((c, t, a) for c in ("LPS", "ASR", "IPR") for t in (15, -30) for a in ("AP", "SI")),
    ]:
        data, affine = (1000 * blob(shape_of(codes), width=1.7)).astype(np.float32), affine_of(codes, tilt)
        source = save(tmp_path / f"{codes}.nii", data, affine)
        image = super_resolve(source, tmp_path / "out", degradation, network, slice_axis)
        assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(affine)
        across = [AXES[code] == slice_axis for code in codes]
        factors = np.where(across, degradation.factors[2], 2)
        assert image.shape == tuple(np.array(data.shape) * factors)
        assert np.allclose(
            np.linalg.norm(image.affine[:3, :3], axis=0) * factors, np.linalg.norm(affine[:3, :3], axis=0)
        )
        moved = centre_of_mass(image.get_fdata(), image.affine) - centre_of_mass(data, affine)
        assert np.linalg.norm(moved) < 0.1 * min(SPACING.values()) / 2, codes
        assert image.get_fdata().max() == pytest.approx(data.max(), rel=0.1)


@pytest.mark.parametrize("slice_axis", ["SI", "LR"])
def test_a_scan_gives_one_result_however_it_is_stored(tmp_path, slice_axis):
    """The network sees the same voxels, and what it makes of them lies in the same place, in the stored orientation."""
    degradation = KSpaceTruncation((2, 2, 1))
    data = (1000 * np.random.default_rng(0).random(shape_of("RAS"))).astype(np.float32)
    scan = nib.Nifti1Image(data, affine_of("RAS", 20))
    seen = []

    def network(lr):
        seen.append(lr)
        return cubic(lr, degradation.factors, degradation.offset)

    expected = None
    for codes in ["RAS", *ORIENTATIONS]:
        source = tmp_path / f"{codes}.nii"
        nib.save(stored_as(scan, codes), source)
        image = super_resolve(source, tmp_path / "out", degradation, network, slice_axis)
        assert nib.aff2axcodes(image.affine) == tuple(codes)
        found = nib.as_closest_canonical(image)
        expected = expected or found
        assert torch.equal(seen[-1], seen[0])
        np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())
        np.testing.assert_allclose(found.affine, expected.affine, rtol=0, atol=2e-5)
    # LR voxel 0 of the canonical order lies on HR voxel 0.
    np.testing.assert_allclose(expected.affine[:, 3], scan.affine[:, 3], atol=2e-5)


# Data as it is on disk, and the type in which the result is.
STORED = {
    "int16": (np.int16, -1024, 3000, {}, np.int16),
    "uint8": (np.uint8, 0, 255, {}, np.uint8),
    "uint16": (np.uint16, 0, 60_000, {}, np.uint16),
    "int32": (np.int32, -5, 70_000, {}, np.int32),
    "int64": (np.int64, 0, 4000, {}, np.int64),
    "big_endian": (np.dtype(">i2"), -100, 900, {}, np.int16),
    "float32": (np.float32, 0.0, 1.5e-3, {}, np.float32),
    "float64": (np.float64, -3.5, 1e5, {}, np.float32),
    "scaled": (np.int16, -2000, 2000, {"slope": 0.25, "inter": 100.0}, np.float32),
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_range_units_and_data_type_come_back(tmp_path, stored):
    dtype, low, high, scaling, expected_dtype = stored
    shape = shape_of("PIR")
    data = np.random.default_rng(0).uniform(low, high, shape)
    data[:4] = blob((4, *shape[1:])) * (high - low) / 3 + low
    data.flat[:2] = low, high
    data = data.astype(dtype)
    source = save(tmp_path / "scan.nii.gz", data, affine_of("PIR", 12), **scaling)
    loaded = nib.load(source)
    image = super_resolve(source, tmp_path / "out", BlockAverage((2, 2, 2)), repeated((2, 2, 2)))
    assert image.get_data_dtype() == expected_dtype
    expected = repeated((2, 2, 2))(torch.from_numpy(loaded.get_fdata())).numpy()
    if np.issubdtype(expected_dtype, np.integer):
        assert np.array_equal(np.asarray(image.dataobj), expected)
    else:
        assert np.allclose(image.get_fdata(), expected, rtol=1e-5, atol=1e-6 * (high - low))


def test_values_beyond_what_the_type_or_the_input_holds_are_cut_off(tmp_path):
    data = np.random.default_rng(0).integers(10, 255, (6, 6, 6)).astype(np.uint8)
    source = save(tmp_path / "scan.nii", data)

    def overshooting(lr):
        sr = repeated((2, 2, 2))(lr)
        sr[..., 0, 0, 0], sr[..., 1, 0, 0] = 1.5, -0.5
        return sr

    image = np.asarray(super_resolve(source, tmp_path / "out", BlockAverage((2, 2, 2)), overshooting).dataobj)
    assert image[0, 0, 0] == 255 and image[1, 0, 0] == data.min() == 10


@pytest.mark.parametrize("codes", [(1, 1), (4, 1), (2, 0), (0, 1), (0, 0)], ids=str)
@pytest.mark.parametrize("units", [("mm", "sec"), ("micron", "unknown"), ("unknown", "unknown")], ids=str)
def test_form_codes_and_units_are_kept(tmp_path, codes, units):
    data = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    source = save(tmp_path / "scan.nii", data, affine_of("LPS", 10), sform=codes[0], qform=codes[1], units=units)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = super_resolve(source, tmp_path / "out", KSpaceTruncation((2, 2, 2)), repeated((2, 2, 2)))
    # Without a code, readers guess from the size, which would misplace the result: what was assumed is written.
    expected = codes if any(codes) else (1, 1)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == expected
    assert image.header.get_xyzt_units() == units


def test_normalising_maps_0_and_the_999th_thousandth_and_clips_nothing():
    volume = torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0)) * 500 + 100
    volume[0, 0, 0, 0] = 5000
    image = MetaTensor(volume.clone(), affine=np.eye(4), meta={"filename_or_obj": "a.nii"})
    out = NormaliseVolumed("x")({"x": image})["x"]
    high = np.quantile(volume.numpy(), 0.999)
    assert torch.allclose(torch.as_tensor(out), volume / high, atol=1e-6) and out.max() > 7
    assert torch.equal(image.as_tensor(), volume) and "intensity_range" not in image.meta
    negative = NormaliseVolumed("x")({"x": MetaTensor(volume - 700)})["x"]
    assert negative.min() == 0 and np.quantile(negative.numpy(), 0.999) == pytest.approx(1, abs=1e-5)


def test_a_volume_of_few_bright_voxels_is_scaled_by_the_brightest():
    volume = torch.zeros(1, 20, 20, 20)
    volume[0, 3, 4, 5], volume[0, 3, 4, 6] = 40.0, 20.0
    out = NormaliseVolumed("x")({"x": MetaTensor(volume)})["x"]
    assert out.max() == 1 and out[0, 3, 4, 6] == 0.5 and out.min() == 0


@pytest.mark.parametrize("other", [GaussianProfile((2, 2, 2)), KSpaceTruncation((2, 2, 1))])
def test_scans_on_another_grid_than_the_networks_are_refused(other):
    """Their results would be displaced, and with them what they are compared with."""
    degradation = KSpaceTruncation((2, 2, 2))
    noisy = ComposeDegradations([degradation, RicianNoise(0.01)])
    assert MakeLRd("hr", noisy, like=degradation).degradation is noisy
    with pytest.raises(ValueError, match=r"scan_degradation puts LR voxel i on .* Set degradation to one with these"):
        MakeLRd("hr", other, like=degradation)


def test_missing_keys_are_passed_over_where_that_is_allowed():
    for transform in (SliceAxisd, NormaliseVolumed, CheckHeaderd, CheckVoxelsd):
        assert transform(["hr", "lr"], allow_missing_keys=True)({"other": 1}) == {"other": 1}
        with pytest.raises(KeyError, match="hr"):
            transform(["hr", "lr"])({"other": 1})
    assert MakeLRd("hr", KSpaceTruncation((2, 2, 2)), allow_missing_keys=True)({"lr": 1}) == {"lr": 1}


@pytest.mark.parametrize("degradation", [KSpaceTruncation((2, 2, 1)), BlockAverage((2, 3, 4))], ids=str)
def test_a_missing_lr_volume_is_made_from_hr(degradation):
    affine = affine_of("SPL", 20)
    hr = MetaTensor(torch.rand(1, 13, 14, 9), affine=affine, meta={"filename_or_obj": "a.nii"})
    out = MakeLRd("hr", degradation)({"hr": hr})
    size = [n // f * f for n, f in zip((13, 14, 9), degradation.factors, strict=True)]
    assert torch.equal(out["hr"].as_tensor(), hr.as_tensor()[:, : size[0], : size[1], : size[2]])
    assert np.allclose(out["hr"].affine, affine) and np.allclose(out["lr"].affine, degradation.lr_affine(affine))
    assert torch.allclose(out["lr"].as_tensor(), degradation(out["hr"].as_tensor()), atol=1e-6)
    assert out["lr"].meta["filename_or_obj"] == "a.nii" and hr.shape == (1, 13, 14, 9)


def test_an_authentic_lr_volume_is_kept_and_must_fit():
    hr = MetaTensor(torch.rand(1, 9, 8, 6), affine=torch.eye(4, dtype=torch.float64))
    place = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    lr = MetaTensor(torch.rand(1, 4, 4, 3), affine=place)
    out = MakeLRd("hr", KSpaceTruncation((2, 2, 2)))({"hr": hr, "lr": lr})
    assert out["lr"] is lr and out["hr"].shape == (1, 8, 8, 6)
    with pytest.raises(ValueError, match=r"LR has \(4, 4, 3\) voxels and HR \(8, 8, 6\).*should have \(4, 4, 6\)"):
        MakeLRd("hr", KSpaceTruncation((2, 2, 1)))({"hr": hr, "lr": lr})
    mirrored, moved = place.clone(), place.clone()
    mirrored[0, 0], mirrored[0, 3] = -2, 6  # the same voxels in space, stored from the other side
    moved[2, 3] = 1
    for affine in (mirrored, moved, torch.eye(4, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"LR does not lie on HR.*LR voxel i on HR voxel \[2, 2, 2\] \* i \+ \[0"):
            MakeLRd("hr", KSpaceTruncation((2, 2, 2)))({"hr": hr, "lr": MetaTensor(lr.as_tensor(), affine=affine)})


def test_a_pair_lies_where_the_world_says(tmp_path):
    """LR made from HR in the world's order is taken however both are stored, LR made in a mirrored file's is not."""
    degradation = KSpaceTruncation((2, 2, 2))
    transform = Compose([LoadScand(["hr", "lr"], "SI"), MakeLRd("hr", degradation)])
    rng = np.random.default_rng(0)
    hr = nib.Nifti1Image(rng.random((8, 10, 12), dtype=np.float32), affine_of("RAS", 10))
    lr = nib.Nifti1Image(rng.random((4, 5, 6), dtype=np.float32), degradation.lr_affine(hr.affine))
    paths = {}
    for codes in ("LPS", "SAL"):
        for key, image in (("hr", hr), ("lr", lr)):
            paths[key, codes] = tmp_path / f"{key}_{codes}.nii"
            nib.save(stored_as(image, codes), paths[key, codes])
    out = transform({"hr": paths["hr", "LPS"], "lr": paths["lr", "SAL"]})
    assert out["hr"].shape == (1, 8, 10, 12) and out["lr"].shape == (1, 4, 5, 6)
    mirrored = degradation.lr_affine(nib.load(paths["hr", "LPS"]).affine)
    nib.save(nib.Nifti1Image(rng.random((4, 5, 6), dtype=np.float32), mirrored), tmp_path / "own.nii")
    with pytest.raises(RuntimeError) as caught:
        transform({"hr": paths["hr", "LPS"], "lr": tmp_path / "own.nii"})
    assert "the first voxel by 0.50 LR voxels" in str(caught.value.__cause__)


def result_to_save(name="scan.nii.gz"):
    return {"pred": MetaTensor(torch.rand(1, 4, 4, 4), affine=np.eye(4), meta={"filename_or_obj": name})}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("scan.nii.gz", "scan_sr"), ("sub.01.nii", "sub.01_sr"), ("pair.img", "pair_sr"), ("series", "series_sr")],
)
def test_results_are_named_by_their_inputs(tmp_path, name, expected):
    SaveVolumed("pred", tmp_path / "new" / "folder")(result_to_save(f"/data/{name}"))
    assert os.listdir(tmp_path / "new" / "folder") == [f"{expected}.nii.gz"]


def test_results_of_files_with_one_name_are_told_apart_by_their_subjects(tmp_path):
    for subject in ("a", "b", "t1"):
        SaveVolumed("pred", tmp_path)({**result_to_save(f"/data/{subject}/t1.nii.gz"), "subject": subject})
    assert sorted(os.listdir(tmp_path)) == ["a_t1_sr.nii.gz", "b_t1_sr.nii.gz", "t1_sr.nii.gz"]


def test_results_are_named_by_their_entries_and_said_where_they_are(tmp_path):
    entry = {**result_to_save("/data/scan.nii"), "name": "sub-1_T1w"}
    for bids, expected in ((False, "sub-1_T1w_sr.nii.gz"), ("true", "sub-1/anat/sub-1_res-high_desc-sr_T1w.nii.gz")):
        saved = SaveVolumed("pred", tmp_path, bids=bids, description="super-resolved " + "x" * 90)(entry)["saved_to"]
        assert saved == str(tmp_path / expected)
        assert nib.load(saved).header["descrip"].item().decode() == "super-resolved " + "x" * 65


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def half(image, path):
        path.write_bytes(b"half a file")
        raise OSError("No space left on device")

    SaveVolumed("pred", tmp_path)(result_to_save("old.nii"))
    before = (tmp_path / "old_sr.nii.gz").read_bytes()
    monkeypatch.setattr(nib, "save", half)
    for name in ("new.nii", "old.nii"):
        with pytest.raises(OSError, match="No space"):
            SaveVolumed("pred", tmp_path)(result_to_save(name))
    assert os.listdir(tmp_path) == ["old_sr.nii.gz"] and (tmp_path / "old_sr.nii.gz").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        SaveVolumed("pred", tmp_path / "file" / "out")(result_to_save())


def nifti(path, shape=(5, 6, 7), dtype=np.int16, **header):
    return save(path, np.arange(np.prod(shape)).reshape(shape).astype(dtype), **header)


def broken_affine(path, value):
    image = nib.load(nifti(path))
    data, header = np.asarray(image.dataobj), image.header.copy()
    header["sform_code"], header["qform_code"] = 2, 0
    header["srow_x"][:3] = value
    nib.save(nib.Nifti1Image(data, None, header), path)


def rgb(path):
    data = np.zeros((5, 6, 7), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def cut(path, keep):
    whole = nifti(path, (30, 30, 30)).read_bytes()
    path.write_bytes(whole[: keep if keep >= 1 else int(keep * len(whole))])


BAD_FILES = {
    "missing": ("a.nii", lambda p: None, FileNotFoundError, "there is no such file"),
    "folder": ("a.nii", lambda p: p.mkdir(), FileNotFoundError, "there is no such file"),
    "empty": ("a.nii.gz", lambda p: p.write_bytes(b""), ValueError, "not a readable image"),
    "text": ("a.nii", lambda p: p.write_text("x" * 1000), ValueError, "not a readable image"),
    "truncated": ("a.nii.gz", lambda p: cut(p, 60), ValueError, "not a readable image"),
    "2-D": ("a.nii", lambda p: nifti(p, (20, 20)), ValueError, "3-D volume"),
    "one slice": ("a.nii", lambda p: nifti(p, (20, 20, 1)), ValueError, "3-D volume"),
    "4-D": ("a.nii", lambda p: nifti(p, (5, 5, 5, 3)), ValueError, "save each volume of the series"),
    "5-D": ("a.nii", lambda p: nifti(p, (5, 5, 5, 1, 2)), ValueError, "save each volume of the series"),
    "RGB": ("a.nii", rgb, ValueError, "one real number each, not colour"),
    "complex": ("a.nii", lambda p: nifti(p, dtype=np.complex64), ValueError, "one real number each"),
    "singular": ("a.nii", lambda p: broken_affine(p, 0), ValueError, "not invertible.*Write a valid sform"),
    "NaN affine": ("a.nii", lambda p: broken_affine(p, np.nan), ValueError, "not invertible"),
}


@pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_volume_is_refused_before_it_is_read(tmp_path, bad):
    name, make, kind, said = bad
    make(tmp_path / name)
    with pytest.raises(kind, match=f"(?s){name}.*{said}"):
        CheckHeaderd("image")({"image": str(tmp_path / name)})


def test_a_file_without_orientation_is_taken_with_a_warning_that_is_true(tmp_path):
    path = nifti(tmp_path / "a.nii", sform=0, qform=0)
    with pytest.warns(
        UserWarning, match=r"a\.nii: .*no orientation.*right to left, posterior to anterior.*\(0\.9, 1\.1, 2"
    ):
        CheckHeaderd("image")({"image": path})
    assert nib.aff2axcodes(nib.load(path).affine) == ("L", "A", "S")
    for codes in ((1, 0), (0, 1), (4, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CheckHeaderd("image")({"image": nifti(tmp_path / "b.nii", sform=codes[0], qform=codes[1])})


def test_what_is_no_path_passes_the_header_check():
    entry = {"image": MetaTensor(torch.rand(1, 2, 3, 4)), "other": 5}
    assert CheckHeaderd("image")(entry) == entry


def voxels(change, shape=(1, 5, 6, 7)):
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(change(volume), meta={"filename_or_obj": "/data/sub-01.nii.gz"})


def put(value):
    def change(volume):
        volume[0, 1, 2, 3:5] = value
        return volume

    return change


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (voxels(lambda v: torch.full_like(v, np.nan)), "210 of 210 voxels are NaN or infinite, so there is no image"),
        (voxels(lambda v: torch.full_like(v, 3.5)), "every voxel is 3.5.*leave the volume out"),
        (voxels(lambda v: v[..., :2]), r"\(5, 6, 2\) voxels, fewer than a slab: 3"),
    ],
)
def test_voxels_that_are_no_image_are_refused_with_the_files_name(volume, said):
    with pytest.raises(ValueError, match=rf"sub-01\.nii\.gz: .*{said}"):
        CheckVoxelsd("image")({"image": volume})
    with pytest.raises(ValueError, match=rf"image: .*{said}"):
        CheckVoxelsd("image")({"image": volume.as_tensor()})


BALL = np.linalg.norm(np.indices((20, 21, 22)) - np.reshape((10, 10, 0), (3, 1, 1, 1)), axis=0) < 8
HOLLOW = BALL & ~(np.linalg.norm(np.indices(BALL.shape) - np.reshape((10, 10, 4), (3, 1, 1, 1)), axis=0) < 2.5)


FOLD = np.zeros_like(BALL)
FOLD[9:11, 12:] = True


@pytest.mark.parametrize(
    ("value", "where", "tissue"),
    [
        (np.nan, np.s_[0, 0, 21], 0),
        (np.inf, np.s_[15:, :, 12:], 0),
        (np.nan, ~BALL | FOLD, 0),
        (-np.inf, np.s_[10, 14, 4], 1),
        (np.nan, np.s_[10, 10, 4], 1),  # in the dark hollow
        (np.nan, np.s_[10, 10, 0], 1),  # where tissue is cut off by the border
        (np.nan, np.s_[:, 9, :], r"[1-9]\d"),  # a slice is lost
    ],
)
@pytest.mark.parametrize("air", [0, -1000])
def test_voxels_that_are_not_finite_are_air_outside_of_tissue_alone(value, where, tissue, air):
    noise = 30 * np.random.default_rng(0).random(BALL.shape)
    whole = np.where(HOLLOW, 500, air) + noise
    volume = whole.copy()
    volume[where] = value
    count = np.sum(~np.isfinite(volume))
    entry = {"image": MetaTensor(torch.from_numpy(volume)[None], meta={"filename_or_obj": "a.nii"})}
    if tissue:
        said = rf"a\.nii: {count} of 9240 voxels are NaN or infinite, {tissue} of them in tissue"
        with pytest.raises(ValueError, match=said):
            CheckVoxelsd("image")(entry)
        return
    with pytest.warns(UserWarning, match=rf"a\.nii: {count} of 9240 voxels are NaN or infinite, all outside of tissue"):
        out = CheckVoxelsd("image")(entry)["image"]
    expected = np.where(np.isfinite(volume), volume, min(np.nanmin(volume[np.isfinite(volume)]), 0))
    np.testing.assert_array_equal(out[0], expected)
    assert out.meta["filename_or_obj"] == "a.nii" and not torch.isfinite(entry["image"]).all()


@pytest.mark.parametrize("shape", [(6, 7, 8, 1), (6, 7, 8, 1, 1)])
@pytest.mark.parametrize("name", ["scan.nii", "SCAN.NII", "SCAN.NII.GZ"])
def test_one_volume_of_more_axes_is_a_volume_whatever_the_case_of_its_name(tmp_path, shape, name):
    nifti(tmp_path / name.lower(), shape)
    (tmp_path / name.lower()).rename(tmp_path / name)
    entry = {"image": str(tmp_path / name)}
    with pytest.warns(UserWarning, match=rf"{name}: the image has shape .*, one volume; taken as 3-D"):
        entry = LoadScand("image", "SI")(entry)
    sr = MetaTensor(repeated((2, 2, 2))(entry["image"].as_tensor()))
    SaveVolumed("sr", tmp_path)(RestoreVolumed("sr", "image", BlockAverage((2, 2, 2)))({**entry, "sr": sr}))
    image = nib.load(tmp_path / f"{name.split('.')[0]}_sr.nii.gz")
    assert image.shape == (12, 14, 16) and image.get_data_dtype() == np.int16
    source = np.arange(6 * 7 * 8).reshape(6, 7, 8)
    np.testing.assert_array_equal(image.dataobj, repeated((2, 2, 2))(torch.from_numpy(source)))


def test_forms_that_contradict_each_other_are_told_of(tmp_path):
    """By how much and which is used; nothing is said where they agree, nor of a form that has no code."""

    def load(name, codes=(4, 1), moved=0.0, quaternion=None):
        image = nib.Nifti1Image(np.random.default_rng(0).random((20, 20, 20), dtype=np.float32), affine_of("LPS", 10))
        qform = image.affine.copy()
        qform[1, 3] += moved
        image.set_qform(qform, codes[1])
        image.set_sform(image.affine, codes[0])
        if quaternion is not None:
            image.header["quatern_b"] = quaternion
        image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), None, image.header)
        nib.save(image, tmp_path / f"{name}.nii")
        CheckHeaderd("image")({"image": tmp_path / f"{name}.nii"})

    said = (
        r"apart\.nii: its sform \(code 4\) and its qform \(code 1\) put voxels up to 15\.00 mm apart; the sform is used"
    )
    with pytest.warns(UserWarning, match=said):
        load("apart", moved=15)
    with pytest.warns(UserWarning, match=r"none\.nii: its qform is not valid; its sform is used"):
        load("none", quaternion=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("near", moved=0.05)
        load("sform", (2, 0), moved=15)
        load("qform", (0, 2), moved=15)
        load("sform", (2, 0), quaternion=2)


def test_good_voxels_pass():
    entry = {"image": voxels(lambda v: v)}
    assert CheckVoxelsd("image")(entry) == entry
    with pytest.raises(ValueError, match="fewer than a slab: 7"):
        CheckVoxelsd("image", minimum=7)(entry)


def test_what_follows_the_voxels(tmp_path):
    """FreeSurfer's files have a history after the voxels, of any length; a NIfTI that goes on is not what it says."""
    volume = np.random.default_rng(0).random((8, 9, 7), dtype=np.float32)
    nib.save(nib.MGHImage(volume, np.eye(4)), tmp_path / "a.mgh")
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    for name in ("a.mgh", "a.nii"):
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(10_000))
    check = CheckHeaderd("image")
    assert check({"image": tmp_path / "a.mgh"})
    with pytest.raises(ValueError, match=r"a\.nii: holds 12368 bytes, expected 2368 for \(8, 9, 7\) voxels"):
        check({"image": tmp_path / "a.nii"})
