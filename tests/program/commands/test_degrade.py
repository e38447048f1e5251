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
from common.degradations import choose_degradation
from common.io.read import read_volume
from common.io.slice_axis import read_slice_axis
from common.io.slice_thickness import read_profile_width
from common.program.commands.super_resolve import super_resolve
from common.program.exams.choose import parse_scale
from common.transforms import LoadScand, MakeLRd

from ...bundles.runs import phantom, save
from ...refused import has, refused

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
    for name in GRIDS:
        image = nib.load(hr / f"{name}.nii.gz")
        lr, record = read(tmp_path / "lr" / f"{name}_lr.nii.gz")
        sr = nib.load(tmp_path / "sr" / f"{name}_lr_sr.nii.gz")
        whole, affine = take_whole(image, record)
        assert sr.shape == whole.shape and lr.get_data_dtype() == np.int16
        np.testing.assert_allclose(sr.affine, affine, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_less(np.subtract(image.shape, whole.shape), 4)
        assert np.corrcoef(sr.get_fdata().ravel(), whole.ravel())[0, 1] > 0.97
        # Training takes the pair: LR lies where it expects it.
        load = LoadScand(["hr", "lr"], slice_axis="LR" if name == "anisotropic" else "SI")
        pair = load({"hr": hr / f"{name}.nii.gz", "lr": tmp_path / "lr" / f"{name}_lr.nii.gz"})
        MakeLRd("hr", choose_degradation(parse_scale(scale)))(pair)


def acquire(volume, factors, width, fraction):
    """LR by NumPy, slices along the last axis; with a width in voxels, slices have a profile."""
    volume = volume[tuple(slice(n // f * f) for n, f in zip(volume.shape, factors, strict=True))]
    if width is not None:
        along = np.linspace(-2 * width, 2 * width, 81)
        weights = np.exp(-4 * np.log(2) * (along / width) ** 2)
        centres = np.arange(0, volume.shape[2], factors[2])
        places = np.clip(centres[:, None] + along, 0, volume.shape[2] - 1)
        values = CubicSpline(np.arange(volume.shape[2]), volume, axis=2)(places)
        volume = values @ (weights / weights.sum())
    for axis, factor in enumerate(factors[: 3 if width is None else 2]):
        n = volume.shape[axis] // factor
        k_space = np.fft.fftshift(np.fft.fft(np.moveaxis(volume, axis, -1)), axes=-1)
        first = k_space.shape[-1] // 2 - n // 2
        kept = k_space[..., first : first + n] / factor
        if axis == 1:
            kept[..., max(round(fraction * n), n // 2 + 1) :] = 0
        volume = np.moveaxis(np.fft.ifft(np.fft.ifftshift(kept, axes=-1)).real, -1, axis)
    return np.abs(volume)


def test_slices_that_voxel_sizes_do_not_show_are_named(tmp_path, capsys):
    """HR is coronal, and LR has cubic voxels; its JSON says so, which mri-sr reads."""
    hr = save(tmp_path / "hr.nii.gz", phantom(0, (20, 14, 24)), np.diag([1.0, 2, 1, 1]), axes="IRA")
    main(["degrade", str(hr), str(tmp_path / "lr"), "--scale", "2x2x1"])
    has(capsys.readouterr().out, "to 12 x 10 x 14 of 2 x 2 x 2 mm")
    assert read_slice_axis(tmp_path / "lr" / "hr_lr.nii.gz") == 2


@pytest.mark.parametrize(("thickness", "fraction"), [(None, 1.0), (None, 0.7), (3.0, 0.75)])
def test_it_is_the_physics_of_a_scanner(tmp_path, thickness, fraction):
    """By NumPy in anatomical axes; where its voxels lie; what its JSON says; and the operator that it holds."""
    hr = make_hr(tmp_path / "hr")
    words = ["--scale", "2x2x2", "--partial_fourier", str(fraction)]
    main(["degrade", str(hr), str(tmp_path), *words, *(["--slice_thickness", str(thickness)] if thickness else [])])
    for name, across in (("oblique", 2), ("flipped", 2), ("anisotropic", 0)):
        image = nib.as_closest_canonical(nib.load(hr / f"{name}.nii.gz"))
        path = tmp_path / f"{name}_lr.nii.gz"
        stored, record = read(path)
        lr = nib.as_closest_canonical(stored)
        np.testing.assert_allclose(lr.affine, image.affine @ np.diag([2, 2, 2, 1]), rtol=1e-6, atol=1e-6)
        spacing = image.header.get_zooms()
        width = thickness and thickness / spacing[across]
        expected = acquire(np.moveaxis(image.get_fdata(), across, 2), [2, 2, 2], width, fraction)
        inner = slice(None) if width is None else slice(int(width) + 1, -int(width) - 1)  # of slices
        apart = (np.moveaxis(lr.get_fdata(), across, 2) - expected)[..., inner]
        assert np.abs(apart).max() < (0.05 if width is None else 5)  # of 1000
        distance = 2 * spacing[across]
        axis = int(np.flatnonzero(nib.io_orientation(stored.affine)[:, 0] == across)[0])
        assert record["SliceEncodingDirection"] == "ijk"[axis] and record["Sources"] == [f"{name}.nii.gz"]
        said = [record[key] for key in ("SpacingBetweenSlices", "SliceThickness")]
        assert said == pytest.approx([distance, thickness or distance], abs=1e-5)
        assert record["MRAcquisitionType"] == ("2D" if thickness else "3D")
        assert record.get("PartialFourier", 1) == fraction
        if axis == 2:
            assert read_profile_width(read_volume(path)[None, None]) == pytest.approx(said[1] / distance, abs=1e-5)
        operator = ConfigParser({"a": record["Degradation"]}).get_parsed_content("a")
        whole, affine = take_whole(nib.load(hr / f"{name}.nii.gz"), record)
        again = operator(torch.from_numpy(whole)).abs().numpy()
        np.testing.assert_array_equal(again.astype(np.float32), stored.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(operator.compute_lr_affine(affine), stored.affine, rtol=1e-6, atol=1e-6)
        # Nothing is lost: the mean, and a constant.
        constant = operator(torch.full(whole.shape, 300.0, dtype=torch.float64))
        torch.testing.assert_close(constant, torch.full_like(constant, 300))
        if thickness is None:
            assert operator(torch.from_numpy(whole)).mean() == pytest.approx(whole.mean())


def test_noise_has_its_size_in_air_and_in_tissue(tmp_path):
    """The same with a seed, another with another; and the JSON's operator draws it again."""
    hr = save(tmp_path / "hr.nii.gz", phantom(0, (48, 44, 40)))
    lr = {}
    for name, words in {"none": [], "a": ["--noise", "0.05"], "b": ["--noise", "0.05", "--seed", "1"]}.items():
        for again in ("", "2"):
            path = tmp_path / f"{name}{again}.nii.gz"
            main(["degrade", str(hr), "-o", str(path), "--scale", "2x2x1", *words])
            lr[name + again] = nib.load(path).get_fdata()
    sigma = 0.05 * np.quantile(nib.load(hr).get_fdata(), 0.999)
    assert all(np.array_equal(lr[name], lr[f"{name}2"]) for name in ("none", "a", "b"))
    tissue, air = lr["none"] > 8 * sigma, lr["none"] < 0.1 * sigma
    assert min(tissue.sum(), air.sum()) > 2000
    for name in ("a", "b"):
        assert (lr[name] - lr["none"])[tissue].std() == pytest.approx(sigma, rel=0.05)
        assert lr[name][air].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.05)
        _, record = read(tmp_path / f"{name}.nii.gz")
        operator = ConfigParser({"a": record["Degradation"]}).get_parsed_content("a")
        again = operator(torch.from_numpy(nib.load(hr).get_fdata())).numpy()
        np.testing.assert_array_equal(again.astype(np.float32), lr[name])
    assert abs(np.corrcoef((lr["a"] - lr["none"])[tissue], (lr["b"] - lr["none"])[tissue])[0, 1]) < 0.1


def test_what_cannot_be_degraded_is_named_and_the_others_are_done(tmp_path, capsys):
    hr, out, volume = tmp_path / "hr", tmp_path / "out", phantom(0, (24, 20, 18))
    hr.mkdir()
    nib.save(nib.MGHImage(volume.astype(np.float32), np.diag([1.0, 1, 1, 1])), hr / "good.mgz")
    save(hr / "four.nii.gz", np.stack([volume, volume], 3))
    save(hr / "thin.nii.gz", volume[..., :7])
    save(hr / "scores.nii.gz", (volume - volume.mean()) / volume.std())
    colours = np.zeros(volume.shape, [(each, "u1") for each in "RGB"])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), hr / "colour.nii.gz")
    words = ["degrade", str(hr), str(out), "--scale", "1x1x4"]
    said = refused(lambda: main(words), SystemExit, "scans failed, the others are done")
    has(said, "four.nii.gz: ", "(24, 20, 18, 2)", "thin.nii.gz: ", "24 x 20 x 7 voxels", "scores.nii.gz: ")
    has(said + capsys.readouterr().out, "24 x 20 x 1", "colour.nii.gz")
    assert sorted(path.name for path in out.iterdir()) == ["good_lr.json", "good_lr.nii.gz"]
    good = str(hr / "good.mgz")
    main(["degrade", good, str(out), "--scale", "2x2x1"])  # again, in place of the other
    assert nib.load(out / "good_lr.nii.gz").shape == (12, 10, 18)
    refused(lambda: main(["degrade", str(hr / "colour.nii.gz"), str(out), "--scale", "2x2x1"]), SystemExit, "colour")
    mine = save(tmp_path / "mine.nii.gz", volume)
    for words, why in {
        "--scale 2": "--scale",
        "--scale 99x1x1": "0 x 20 x 18",
        "--scale 2x2x2 --noise -0.1": "--noise is -0.1",
        "--scale 2x2x2 --noise loud": "--noise is 'loud'",
        "--scale 2x2x2 --partial_fourier 0.4": "--partial_fourier is 0.4",
        "--scale 2x2x1 --slice_thickness 3": "--scale 2x2x1",
        "--scale 2x2x2 --slice_thickness 9": "of 1 to 4 mm",
        "--scale 2x2x2 --seed -1": "--seed is '-1'",
        "--scale 2x2x2 --slice_axis x": "--slice_axis is 'x'",
        "--noise 0.1": "--scale is missing",
        f"--scale 2x2x2 -o {hr}.mgz": "expected a file .nii.gz or .nii",
        f"--scale 2x2x2 -o {mine}": "degrade did not make it",
    }.items():
        refused(lambda words=words: main(["degrade", good, *words.split()]), SystemExit, why)
    refused(lambda: main(["degrade", str(mine), "-o", str(mine), "--scale", "2x2x2"]), SystemExit, "written over")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hr", "mine.nii.gz", "out"]
    main(["degrade", str(hr / "good.mgz"), "--scale", "2x2x2"])
    assert {path.name for path in (hr / "degraded").iterdir()} == {"good_lr.nii.gz", "good_lr.json"}
