"""``python -m common super-resolve``: what it does with each scan, and that it is the bundle's inference."""

import json
import os
import resource
import shutil
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.program.commands.super_resolve import super_resolve
from common.runtime.errors import RunsFailedError
from common.weights.loading import read_overlay
from common.weights.saving import write_overlay

from ...bundles import runs
from ...clients import dicom
from ...refused import has, refused
from ...transforms.grids import zero_filled

UNGUIDED = runs.ROOT / "bundles" / "guided_rdn" / "models" / "model_unguided.pt"


def scan(path, spacing, shape=(22, 20, 18)):
    return runs.save(path, runs.phantom(0, shape), np.diag([*spacing, 1.0]), dtype=np.int16)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_folder(tmp_path, capsys):
    """Each scan by the weights that suit it, as their bundle's inference.json does it; others fail by themselves."""
    data, output = tmp_path / "a#b", tmp_path / "a#b" / "super_resolved"
    suited = {"x_t1": ((1.5, 1.5, 1.5), "model"), "y_t1": ((2, 2, 1), "model_2x2x1")}
    for name, (spacing, _) in suited.items():
        scan(data / name[0] / "t1.nii.gz", spacing)
    scan(data / "fine.nii", (0.3, 0.3, 0.3))
    os.truncate(scan(data / "bad.nii", (1.5, 1.5, 1.5)), 2000)
    (data / "closed.dcm").symlink_to("/proc/self/mem")  # a file that cannot be read
    scan(data / "sub-1_mask.nii", (1.5, 1.5, 1.5))
    for name, labels in (("brain.nii.gz", {0: 1}), ("regions.nii", {0: 3, 1: 7})):
        voxels_of = np.zeros((22, 20, 18), np.float32)
        for i, value in labels.items():
            voxels_of[5 + 6 * i : 11 + 6 * i, 5:15, 5:13] = value
        runs.save(data / name, voxels_of, np.diag([1.5, 1.5, 1.5, 1]), dtype=np.float32)
    blurred = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(9, 9, 9)), 1.5)
    crop = np.digitize(blurred, np.quantile(blurred, [0.25, 0.5, 0.75]))
    runs.save(data / "crop.nii.gz", crop, np.diag([1.5, 1.5, 1.5, 1]), dtype=np.float32)
    assert (data / "crop.nii.gz").stat().st_size > 0.25 * crop.size, "it compresses no better than scans"
    (data / "x" / "t1.json").write_text("{,")
    why = ["bad.nii: holds 2000 bytes", "fine.nii: no weights", "0.3 x 0.3 x 0.3 mm", "--bundle zssr", "closed.dcm"]
    begin = partial(super_resolve, str(data))
    refused(lambda: begin(dry_run=True), RunsFailedError, "3 of 5 scans could not be done", *why)
    said = capsys.readouterr().out
    assert ": x_t1\n" in said and "bad" not in said, "what cannot be read is not announced"
    # By their names or their voxels.
    voxel_names = ("brain.nii.gz", "regions.nii", "crop.nii.gz")
    has(said, *(f"passed over: {data / name}: a " for name in ("sub-1_mask.nii", *voxel_names)))
    has(said, f"would write {output / 'x_t1_sr.nii.gz'}\n", f"warning: x_t1: {data / 'x' / 't1.json'}: not valid JSON")
    assert "4 files passed over" in said and not output.exists()
    # What one bundle alone knows is for that one.
    refused(
        lambda: begin(data_consistency_iterations=1, adapt_iterations=0),
        RunsFailedError,
        "3 of 5 scans failed, the others are done",
    )
    said = capsys.readouterr().out
    has(said, "--adapt_iterations", "5 scans: 2 done, 3 failed", output / "log.jsonl")
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert sorted(each["result"] is None for each in log) == 2 * [False] + 7 * [True]
    over = {each["name"]: each["passed_over"] for each in log if "passed_over" in each}
    assert over.keys() == {"sub-1_mask.nii", *voxel_names} and "a mask" in over["brain.nii.gz"]
    for name, (spacing, weights) in suited.items():
        lone = scan(tmp_path / name / "t1.nii.gz", spacing)
        checkpoint = str(runs.ROOT / "bundles" / "udean_window" / "models" / f"{weights}.pt")
        options = {"dataset_dir": str(lone), "data_consistency_iterations": 1, "checkpoint": checkpoint}
        runs.run("udean_window", ["inference"], tmp_path / name, **options)
        own = tmp_path / name / "out" / "t1_sr.nii.gz"
        np.testing.assert_array_equal(voxels(output / f"{name}_sr.nii.gz"), voxels(own))
    # What stands there is neither a scan nor done again, for any part of the list.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    for shard, failed in (("1/2", 2), ("2/2", 1)):
        refused(partial(begin, skip_existing=True, shard=shard), RunsFailedError, f"{failed} of {failed} scans failed")
    assert {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")} == before


def test_several_scans(tmp_path, capsys):
    """Each once, under names of their own; what is none is skipped, and what is not there stops no other."""
    named = [scan(tmp_path / name, (1.5, 1.5, 1.5)) for name in ("one/t1.nii.gz", "two/t1.nii.gz", "two/b.nii")]
    for path in named[1:]:
        with_lost_voxel = voxels(path).astype(np.float32)
        with_lost_voxel[0, 0, 0] = np.nan
        runs.save(path, with_lost_voxel, nib.load(path).affine, dtype=np.float32)
    mask = runs.save(tmp_path / "brain.nii", np.eye(20)[..., None] * np.ones(18), np.eye(4), dtype=np.uint8)
    paths, output = [str(path) for path in (*named, named[0], mask, tmp_path / "no.nii")], tmp_path / "super_resolved"
    begin = partial(super_resolve, *paths, str(tmp_path / "two" / "b.nii"), data_consistency_iterations=0)
    results = {name: output / f"{name}_sr.nii.gz" for name in ("one_t1", "two_t1", "b")}
    refused(lambda: begin(quiet=True), RunsFailedError, "1 of 4 scans failed", "no.nii: there is no such file")
    said = capsys.readouterr()
    assert "4 scans: 3 done, 1 failed" in said.out and not said.err
    assert sorted(output.glob("*.nii.gz")) == sorted(results.values())
    # Results that are there are skipped, or replaced with a line before.
    results["b"].unlink()
    refused(lambda: begin(skip_existing=True), RunsFailedError, "1 of 2 scans failed")
    has(capsys.readouterr().out, "4 scans: 1 done, 2 skipped, 1 failed")
    refused(lambda: begin(dry_run=True), RunsFailedError, "1 of 4 scans could not be done")
    has(capsys.readouterr().out, f"passed over: {mask}: a mask", f"3 earlier results in {output}")
    refused(lambda: super_resolve(str(mask), dry_run=True), RunsFailedError, "a mask")
    refused(lambda: super_resolve(str(mask), str(mask)), ValueError, "found no scan")
    super_resolve(str(named[2]), str(named[0]), str(tmp_path / "new"), dry_run=True)
    said = capsys.readouterr().out
    has(said, f"would write {tmp_path / 'new' / 'b_sr.nii.gz'}", "2 scans: 2 to do", "would take about ")


@pytest.mark.parametrize("kind", ["3-D", "4-D", "DICOM"])
def test_a_result_whose_file_is_named(tmp_path, capsys, kind):
    """That file, and what belongs to it with its name; never over another file."""
    path, out = tmp_path / "in" / "t1.nii.gz", tmp_path / "out" / "own.name.nii"
    scan(path, (1.5, 1.5, 1.5))
    beside = {"own.name.json", "own.name.nii"}
    if kind == "4-D":
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.stack([voxels(path)] * 2, -1), image.affine), path)
        (tmp_path / "in" / "t1.bval").write_text("0 1\n")
        beside |= {"own.name.bval"}
    if kind == "DICOM":
        dicom.Series().save(tmp_path / "series")
        path = tmp_path / "series"
    begin = partial(super_resolve, str(path), data_consistency_iterations=0, bundle="udean_window")
    labels = np.zeros((22, 20, 18), np.uint8)
    labels[5:9, 5:9, 5:9] = 2
    if kind == "3-D":
        label = runs.save(tmp_path / "labels.nii", labels, np.diag([1.5, 1.5, 1.5, 1]), dtype=np.uint8)
        begin, beside = partial(begin, label=str(label)), beside | {"own.name_sr_label.nii.gz"}
    begin(str(out))
    assert {name for name in files(out.parent) if not name.endswith(".dcm")} == beside
    assert bool(list(out.parent.glob("own.name_dicom/*/*.dcm"))) is (kind == "DICOM")
    assert nib.load(out).shape[0] > 22
    capsys.readouterr()
    begin(str(out), skip_existing=True)
    assert "1 scan: 1 skipped" in capsys.readouterr().out
    before = out.stat().st_mtime_ns
    other = scan(tmp_path / "other.nii.gz", (1.5, 1.5, 2))
    refused(lambda: super_resolve(str(other), str(out)), RunsFailedError, "was made of")
    refused(lambda: super_resolve(str(other), output_dir=str(other)), RunsFailedError, "written over")
    for name in ("a.mgz", "a.png"):
        refused(lambda name=name: super_resolve(str(other), str(tmp_path / name)), ValueError, name, ".nii.gz")
    refused(lambda: super_resolve(str(other), output_dir=str(tmp_path / "x.nii"), bids=True), RunsFailedError, "--bids")
    several = partial(super_resolve, str(other), str(tmp_path / "in"), output_dir=str(tmp_path / "x.nii"))
    refused(several, ValueError, "found 2 scans, expected one")
    assert out.stat().st_mtime_ns == before and not (tmp_path / "x.nii").exists()


@pytest.mark.parametrize("scale", [2, "2x2x2", (2, 2, 2)])
def test_a_scale_is_three_factors_or_the_largest(tmp_path, capsys, scale):
    path = str(scan(tmp_path / "a.nii", (1.5, 1.5, 1.5)))
    super_resolve(path, scale=scale, dry_run=True)
    assert "udean_window 2x2x2" in capsys.readouterr().out
    thick = str(scan(tmp_path / "thick.nii", (1, 1, 3)))
    for bundle in ("zssr", "smore"):
        super_resolve(thick, bundle=bundle, scale=scale if scale == 2 else [1, 1, 2], dry_run=True)
        assert f"{bundle} 1x1x2" in capsys.readouterr().out


def test_what_is_asked_for(tmp_path):
    """Weights that were not trained on such scans are used where they are named; a guide chooses those that take it."""
    path = scan(tmp_path / "a_t2w.nii.gz", (0.5, 0.5, 4))
    guide = str(scan(tmp_path / "guide" / "a_t1w.nii.gz", (0.25, 0.25, 4), shape=(44, 40, 18)))
    begin = partial(super_resolve, str(path), str(tmp_path / "out"))
    guided = {"bundle": "guided_rdn", "guide": guide, "register": False}
    for options in ({"bundle": "guided_rdn"}, {"scale": [2, 2, 1]}, guided):
        begin(device="cpu", **options)
        assert voxels(tmp_path / "out" / "a_t2w_sr.nii.gz").shape == (44, 40, 18)
    refused(lambda: begin(bundle="udean_window", guide=guide), RunsFailedError, "no weights")
    refused(lambda: begin(guide=guide), RunsFailedError, "guided_rdn 2x2x1, guided", "2.5 times finer")


def test_what_does_not_fit_is_said_before_anything_is_done(tmp_path):
    path = str(scan(tmp_path / "a.nii", (1.5, 1.5, 1.5)))
    for options, kind, words in (
        ({"dryrun": True}, ValueError, ["--dryrun", "did you mean --dry_run?"]),
        ({"scale": [3, 3, 3]}, ValueError, ["--scale is [3, 3, 3]", "1x1x2, ", "2x2x2"]),
        ({"scale": "big"}, ValueError, ["--scale is big", "2x2x1"]),
        ({"device": "cuda:99"}, ValueError, ["device is cuda:99", "cpu"]),
        ({"checkpoint": "none.pt"}, FileNotFoundError, ["--checkpoint none.pt"]),
        (
            {"checkpoint": str(UNGUIDED), "bundle": "udean_window"},
            ValueError,
            ["weights of guided_rdn", "udean_window"],
        ),
    ):
        refused(partial(super_resolve, path, **options), kind, *words)
    refused(partial(super_resolve, "nowhere"), FileNotFoundError, "nowhere")
    assert files(tmp_path) == ["a.nii"]


def test_what_is_no_scan_is_found_before_it_is_said_what_will_be_done(tmp_path, capsys):
    data, random = tmp_path / "in", np.random.default_rng(0).normal(size=(20, 20, 9)).astype(np.float32)
    affine = np.diag([1, 1, 5.0, 1])
    bad = {"nan": random * np.nan, "zeros": 0 * random, "flat": random[..., :1], "good": runs.phantom(0, (20, 20, 9))}
    for name, array in bad.items():
        runs.save(data / f"{name}.nii.gz", array, affine, dtype=np.float32)
    content = bytearray(runs.save(data / "damaged.nii.gz", random, affine, dtype=np.float32).read_bytes())
    content[2000:2040] = bytes(40)  # the length is right
    (data / "damaged.nii.gz").write_bytes(content)
    for dry_run in (True, False):
        begin = partial(super_resolve, str(data), adapt_iterations=0, dry_run=dry_run)
        refused(begin, RunsFailedError, "nan.nii.gz", "zeros", "flat", "damaged", "could not" * dry_run)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ct_guided ")]
        assert [line.rpartition(": ")[2] for line in lines] == ["good"], lines


def test_own_weights_and_what_a_dry_run_finds(tmp_path, capsys):
    """Weights that do not say on what they were trained are used where they are named; each problem is one scan's."""
    shutil.copy(UNGUIDED, tmp_path / "own.pt")
    overlay = read_overlay(UNGUIDED)
    del overlay["training_range"]
    write_overlay(tmp_path / "own.pt", {**overlay, "checkpoint": "/where/it/was/trained.pt"})
    good, flat = (scan(tmp_path / "in" / f"{name}.nii", (3, 3, 9)) for name in ("good", "flat"))
    image = nib.load(flat)
    image.header["srow_x"] = 0  # which nibabel does not look at
    nib.save(image.__class__(voxels(flat).copy(), None, image.header), flat)
    own = partial(super_resolve, checkpoint=str(tmp_path / "own.pt"), dry_run=True)
    refused(lambda: own(str(tmp_path / "in")), RunsFailedError, "1 of 2 scans", "flat.nii: its sform (code 2) is not")
    said = capsys.readouterr().out
    assert "guided_rdn 2x2x1" in said and f"would write {tmp_path / 'in' / 'super_resolved' / 'good_sr.nii.gz'}" in said
    refused(lambda: own(str(good), features=8), RunsFailedError, "own.pt", "features is 8", "own.json")
    # Which axis runs across slices that are as thick as pixels nobody knows.
    even = str(scan(tmp_path / "even.nii", (2, 2, 2.4)))
    refused(lambda: own(even), RunsFailedError, "--slice_axis SI")
    own(even, slice_axis="SI", device="cpu")
    assert "does not know" not in capsys.readouterr().out
    (tmp_path / "own.json").unlink()
    refused(lambda: own(even), FileNotFoundError, "no own.json")


def test_methods_that_learn_from_the_scan(tmp_path, capsys):
    """They need no weights, and say that they take their time; who needs some says how to get them."""
    path = str(scan(tmp_path / "knee.nii", (1, 1, 3), shape=(16, 16, 8)))
    begin = partial(super_resolve, path, str(tmp_path / "out"))
    for bundle, options in (("zssr", {"ensemble": False}), ("smore", {"blocks": 1})):
        begin(bundle=bundle, iterations=2, features=4, lr_patch=[8, 8], **options)
        assert f"{bundle} 1x1x3, 1 x 1 x 3 mm to 1 x 1 x 1 mm: knee\n" in capsys.readouterr().out
        assert voxels(tmp_path / "out" / "knee_sr.nii.gz").shape == (16, 16, 24)
    refused(lambda: begin(bundle="tscn"), RunsFailedError, "no weights of tscn", "docs/README.md", "--checkpoint FILE")
    refused(lambda: begin(bundle="zssr", scale=[1, 2, 3]), RunsFailedError, "scale is [1, 2, 3]", "[1, 1, n]")


def test_dicom(tmp_path, capsys):
    """A series comes back as a derived one beside its NIfTI, which is no scan the next time."""
    padding = int(dicom.Series().stored[16, 14, 4])  # a value that tissue has too
    images = dicom.Series(attributes={"PixelPaddingValue": padding}).save(tmp_path / "elsewhere")
    folder, output = tmp_path / "in", tmp_path / "in" / "super_resolved"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    super_resolve(str(folder), bundle="udean_window", data_consistency_iterations=0)
    made = files(output)
    (result,) = [name for name in made if name.endswith("_sr.json")]
    series = images[0].SeriesInstanceUID
    written = (output / result).read_text()
    said = "\n".join(json.loads(written)["SuperResolution"]["Warnings"])
    has(said, result.replace("_sr.json", ": "), "PixelPaddingValue")
    assert "super_resolve-" not in written + (output / "log.jsonl").read_text()
    # Folders and patients are named in the log alone.
    assert json.loads(written)["Sources"] == [f"DICOM series {series}"] and str(tmp_path) not in written
    assert str(folder / "linked") in (output / "log.jsonl").read_text()
    assert not any(name in written + str(made) for name in ("Anna", "ID-1", "A1"))
    derived = [name for name in made if name.endswith(".dcm")]
    assert len(derived) == 2 * len(images)
    assert dicom.read((output / derived[0]).parent)[0].ReferencedSeriesSequence[0].SeriesInstanceUID == series
    super_resolve(str(folder), bundle="udean_window", skip_existing=True)
    has(capsys.readouterr().out, "1 of 2 DICOM series", "1 of 1 scans")
    assert files(output) == made
    # A derived series that lost a slice is made again, and so is a result of other weights.
    (output / derived[0]).unlink()
    for options in ({}, {"scale": [2, 2, 1]}):
        super_resolve(str(folder), bundle="udean_window", skip_existing=True, data_consistency_iterations=0, **options)
        assert "have their results" not in capsys.readouterr().out
        assert len([name for name in files(output) if name.endswith(".dcm")]) == (1 if options else 2) * len(images)


def test_the_time_points_of_a_series_give_one_4d_result(tmp_path, capsys):
    for time in (2, 1):
        tags = {"TemporalPositionIdentifier": time, "SeriesInstanceUID": "1.2.3", "RepetitionTime": "2500"}
        images = dicom.Series(
            seed=time, attributes=tags | {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1"}
        ).images()
        dicom.save(images, tmp_path / "in" / f"{time}")
    output = tmp_path / "out"
    begin = partial(super_resolve, str(tmp_path / "in"), str(output), bundle="udean_window", scale=[2, 2, 1])
    begin(data_consistency_iterations=0)
    has(capsys.readouterr().out, "2 time points", "no derived series", "1 scan: 1 done")
    assert files(output) == ["3_t2_tse_sr.json", "3_t2_tse_sr.nii.gz", "log.jsonl"]
    image = nib.load(output / "3_t2_tse_sr.nii.gz")
    assert image.shape == (64, 56, 10, 2) and image.header["pixdim"][4] == 2.5
    for i in range(2):
        expected = ndimage.zoom(dicom.Series(seed=i + 1).values, (2, 2, 1), order=1)
        assert np.corrcoef(image.dataobj[..., i].ravel(), expected.ravel())[0, 1] > 0.9
    begin(skip_existing=True)
    has(capsys.readouterr().out, "1 of 1 scans have their results")


def test_a_4d_scan_is_done_volume_by_volume(tmp_path, capsys):
    """Each volume as if it were alone, with time step and b-values; or none, if one cannot be done."""
    data, output, affine = tmp_path / "in", tmp_path / "out", np.diag([1.5, 1.5, 1.5, 1.0])
    volumes = [(runs.phantom(0, (14, 12, 12)) * factor).astype(np.int16) for factor in (1, 0.6, 0.3)]
    for i, volume in enumerate(volumes, 1):
        runs.save(tmp_path / "alone" / f"{i}.nii.gz", volume, affine, dtype=np.int16)
    image = nib.Nifti1Image(np.stack(volumes, -1), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.5
    data.mkdir()
    nib.save(image, data / "dwi.nii.gz")
    (data / "dwi.json").write_text('{"SkullStripped": true}')
    for name, text in {"bval": "0 1000 2000\n", "bvec": "0 1 0\n0 0 1\n0 0 0\n"}.items():
        (data / f"dwi.{name}").write_text(text)
    volumes[1][:] = 0
    nib.save(nib.Nifti1Image(np.stack(volumes, -1), affine), data / "empty.nii")
    why = "empty.nii: volume 2 of 3: every voxel is 0"
    options = {"scale": [2, 2, 2], "data_consistency_iterations": 0}
    begin = partial(super_resolve, str(data), str(output), **options)
    refused(lambda: begin(dry_run=True), RunsFailedError, why)
    assert capsys.readouterr().out.count("would write") == 2 and not output.exists()
    refused(partial(begin, uncertainty=True), RunsFailedError, "1 of 2 scans failed", why)
    assert nib.load(output / "dwi_interval.nii.gz").shape == nib.load(output / "dwi_sr.nii.gz").shape
    assert json.loads((output / "dwi_interval.json").read_text())["Level"] == 0.9
    refused(begin, RunsFailedError, "1 of 2 scans failed", why)
    assert files(output) == ["dwi_sr.bval", "dwi_sr.bvec", "dwi_sr.json", "dwi_sr.nii.gz", "log.jsonl"]
    super_resolve(str(tmp_path / "alone"), **options)
    alone = tmp_path / "alone" / "super_resolved"
    made, first = nib.load(output / "dwi_sr.nii.gz"), nib.load(alone / "1_sr.nii.gz")
    assert made.get_data_dtype() == np.int16 and made.header["pixdim"][4] == 2.5
    assert made.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(made.affine, first.affine)
    for i in range(3):
        np.testing.assert_array_equal(made.dataobj[..., i], voxels(alone / f"{i + 1}_sr.nii.gz"))
    for name in ("bval", "bvec"):
        assert (output / f"dwi_sr.{name}").read_bytes() == (data / f"dwi.{name}").read_bytes()
    # The result belongs to the 4-D scan.
    described = json.loads((output / "dwi_sr.json").read_text())["SuperResolution"]["Inputs"]
    assert [each["File"] for each in described] == ["dwi.nii.gz"]
    said = json.loads((output / "dwi_sr.json").read_text())
    own = [json.loads((alone / f"{i}_sr.json").read_text())["SuperResolution"] for i in (1, 2, 3)]
    assert said["Sources"] == ["dwi.nii.gz"] and said["SkullStripped"] is True
    assert [one["DifferenceFromScan"] for one in said["SuperResolution"]["Volumes"]] == [
        one["DifferenceFromScan"] for one in own
    ]
    assert said["SuperResolution"]["Bundle"] == "udean_window"
    log = {one["name"]: one for one in map(json.loads, (output / "log.jsonl").read_text().splitlines())}
    assert len(log) == 2 and log["dwi"]["result"] == str(output / "dwi_sr.nii.gz") and why in log["empty"]["error"]
    (data / "empty.nii").unlink()
    capsys.readouterr()
    begin(skip_existing=True)
    assert "1 of 1 scans" in capsys.readouterr().out
    # A dark volume is no label map, unless it is alone.
    dark = ndimage.gaussian_filter(volumes[0].astype(float), 2)
    dark = (6 * dark / dark.max()).astype(np.int16)
    for name, voxel in {"alone.nii": dark, "dark.nii": np.stack([volumes[0], dark], -1)}.items():
        nib.save(nib.Nifti1Image(voxel, affine), tmp_path / name)
    refused(lambda: super_resolve(str(tmp_path / "alone.nii"), dry_run=True), RunsFailedError, "a label map")
    super_resolve(str(tmp_path / "dark.nii"), dry_run=True)


def test_label_maps_go_with_their_scans(tmp_path, capsys):
    """On exactly the result's grid, whatever theirs; one that does not fit fails its scan before it is computed."""
    data, output = tmp_path / "in", tmp_path / "out"
    spacing, shape = (1.5, 1.5, 1.5), (22, 20, 18)
    lesion = np.zeros(shape, np.uint8)
    lesion[8:12, 6:12, 7:11] = 4
    labels = {"1": lesion, "2": np.flip(lesion, 0), "3": lesion + 0.5, "4": None}
    for subject, voxel in labels.items():
        scan(data / f"sub-{subject}_T1w.nii.gz", spacing)
        if voxel is not None:
            place = np.diag([*spacing, 1.0])
            if subject == "2":  # stored in another order
                place = place @ np.array([[-1, 0, 0, shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            runs.save(data / f"sub-{subject}_lesion.nii.gz", voxel, place, dtype=voxel.dtype)
    begin = partial(super_resolve, str(data), str(output), label="*_lesion.nii.gz", data_consistency_iterations=0)
    why = ["2 of 4 scans", "sub-3_lesion.nii.gz: 7920 of 7920 voxels are no whole numbers", "has no label map"]
    refused(lambda: begin(dry_run=True), RunsFailedError, *why)
    said = capsys.readouterr().out
    assert f"would write {output / 'sub-1_T1w_sr.nii.gz'} and {output / 'sub-1_T1w_sr_label.nii.gz'}\n" in said
    assert "passed over" not in said and not output.exists()
    refused(begin, RunsFailedError, *why)
    kinds = ("sr.json", "sr.nii.gz", "sr_label.nii.gz")
    assert files(output) == ["log.jsonl", *(f"sub-{n}_T1w_{kind}" for n in "12" for kind in kinds)]
    for subject in "12":
        result, made = (nib.load(output / f"sub-{subject}_T1w_{kind}") for kind in kinds[1:])
        assert made.get_data_dtype() == np.uint8 and made.header.get_sform(coded=True)[1] == 2
        np.testing.assert_array_equal(made.affine, result.affine)
        found = np.asarray(made.dataobj)
        assert found.shape == result.shape and set(np.unique(found)) == {0, 4}
        assert np.sum(found == 4) == pytest.approx(8 * np.sum(lesion == 4), rel=0.05)
        place = np.argwhere(found == 4).mean(axis=0) / 2
        np.testing.assert_allclose(place, np.argwhere(lesion).mean(axis=0), atol=0.3)
    # The next time a scan is done anew only where its label map is missing.
    capsys.readouterr()
    (output / "sub-2_T1w_sr_label.nii.gz").unlink()
    refused(lambda: begin(skip_existing=True), RunsFailedError)
    assert "1 of 4 scans" in capsys.readouterr().out
    assert (output / "sub-2_T1w_sr_label.nii.gz").exists()
    # Without its label map a scan is done anew, and a label map of the earlier result is said.
    super_resolve(str(data / "sub-2_T1w.nii.gz"), str(output), data_consistency_iterations=0, skip_existing=True)
    said = json.loads((output / "sub-2_T1w_sr.json").read_text())["SuperResolution"]["Warnings"]
    assert any("sub-2_T1w_sr_label.nii.gz" in text for text in said)
    super_resolve(str(data / "sub-1_T1w.nii.gz"), str(output), label=str(data / "sub-1_lesion.nii.gz"), bids=True)
    bids = output / "sub-1" / "anat" / "sub-1_res-high_desc-sr"
    assert (bids.parent / f"{bids.name}_T1w.nii.gz").exists() and (bids.parent / f"{bids.name}T1w_dseg.nii.gz").exists()
    known, own = (json.loads(bids.with_name(f"{bids.name}{end}.json").read_text()) for end in ("_T1w", "T1w_dseg"))
    assert own == {key: known[key] for key in ("Sources", "Resolution")}


def test_label_map_of_a_series(tmp_path):
    """A DICOM series takes the file that is named with it."""
    dicom.Series().save(tmp_path / "series")
    begin = partial(super_resolve, str(tmp_path / "series"), bundle="udean_window", data_consistency_iterations=0)
    begin(str(tmp_path / "plain"))
    (result,) = (nib.load(path) for path in (tmp_path / "plain").glob("*_sr.nii.gz"))
    labels = np.zeros(result.shape, np.int16)
    labels[10:20, 10:20, 4:8] = -2
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(labels, result.affine), path)
    begin = partial(begin, str(tmp_path / "out"))
    begin(label=str(path))
    (made,) = (nib.load(path) for path in (tmp_path / "out").glob("*_sr_label.nii.gz"))
    np.testing.assert_array_equal(np.asarray(made.dataobj), labels)
    refused(lambda: begin(label="*_dseg.nii.gz"), RunsFailedError, "--label")
    refused(lambda: begin(label=str(next((tmp_path / "series").iterdir()))), RunsFailedError, "DICOM")


def test_a_scan_that_was_interpolated_is_taken_as_acquired(tmp_path, capsys):
    """By its own header; the choice of weights, the result and the derived series are of that grid."""
    sizes, filled = (24, 20, 12), (48, 30, 12)
    voxels = np.rint(abs(zero_filled(runs.phantom(0, sizes), filled)))
    tags = {"AcquisitionMatrix": [0, 20, 24, 0], "InPlanePhaseEncodingDirection": "ROW"}
    images = dicom.Series(spacing=(1.0, 1.3, 2.0), shape=filled, attributes=tags).images()
    for k, image in enumerate(images):
        image.PixelData = voxels[:, :, k].T.astype(np.uint16).tobytes()
    dicom.save(images, tmp_path / "in" / "series")
    nii = runs.save(tmp_path / "in" / "a.nii.gz", voxels, np.diag([1, 1.3, 2, 1]), dtype=np.int16)
    said = {"AcquisitionMatrixPE": 24, "BaseResolution": 20, "InPlanePhaseEncodingDirectionDICOM": "ROW"}
    (tmp_path / "in" / "a.json").write_text(json.dumps(said))
    options = {"scale": [2, 2, 2], "data_consistency_iterations": 0}
    super_resolve(str(tmp_path / "in"), str(tmp_path / "out"), acquired_matrix="header", **options)
    assert capsys.readouterr().out.count("udean_window 2x2x2, 2 x 1.95 x 2 mm to 1 x 0.975 x 1 mm") == 2
    for result in (tmp_path / "out").glob("*_sr.nii.gz"):
        assert nib.load(result).shape == (48, 40, 24)
        assert "used as acquired, 24x20x12 of its 48x30x12" in result.with_suffix("").with_suffix(".json").read_text()
    (first, *_) = derived = dicom.read(next((tmp_path / "out").glob("*_dicom/*")))
    assert (len(derived), first.Rows, first.Columns) == (24, 40, 48)
    assert first.PixelSpacing == pytest.approx([0.975, 1])
    begin = partial(super_resolve, str(nii), dry_run=True, **options)
    begin(acquired_matrix=[24, 20, 12])
    for wrong in ([24, 20], [24, 20, 1.5], "yes", True):
        refused(lambda wrong=wrong: begin(acquired_matrix=wrong), ValueError, "--acquired_matrix", repr(wrong))


def test_a_result_that_has_no_room_is_refused_before_computing(tmp_path, capsys):
    """By the largest file that a process may write, and by the free bytes of the disk for all results together."""
    for name in "ab":
        scan(tmp_path / "in" / f"{name}.nii.gz", (1.5, 1.5, 1.5))
    size = (tmp_path / "in" / "a.nii.gz").stat().st_size
    begin = partial(super_resolve, str(tmp_path / "in"), str(tmp_path / "out"), dry_run=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, failed in ((2 * size, 2), (16 * size, 0)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            begin() if not failed else refused(begin, RunsFailedError, f"{failed} of 2 scans", "ulimit -f")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=6 * size))
        patch.setattr("common.program.files.resource", None)  # as on Windows
        refused(begin, RunsFailedError, "1 of 2 scans", "b.nii.gz: ")
    assert capsys.readouterr().out.count("would write") == 3


def test_a_series_that_grew_is_done_again_and_another_patients_is_refused(tmp_path, capsys):
    """The derived series of what had arrived before goes; nothing of the first patient's is touched."""
    images = dicom.Series().images()
    begin = partial(super_resolve, bundle="udean_window", data_consistency_iterations=0, skip_existing=True)
    for count in (len(images) - 2, len(images)):
        dicom.save(images[:count], tmp_path / "in")
        begin(str(tmp_path / "in"), str(tmp_path / "out"))
        assert len(list((tmp_path / "out").glob("*_dicom/*/*.dcm"))) == 2 * count
    described = json.loads(next((tmp_path / "out").glob("*_sr.json")).read_text())["SuperResolution"]["Inputs"]
    assert set(described[0]["Instances"]) == {image.SOPInstanceUID for image in images}
    assert "its inputs have changed" in capsys.readouterr().out
    results = [tmp_path / "out" / name for name in files(tmp_path / "out") if name != "log.jsonl"]
    before = [path.stat().st_mtime_ns for path in results]
    dicom.Series(seed=1).save(tmp_path / "other")
    for skip in (True, False):
        call = partial(begin, str(tmp_path / "other"), str(tmp_path / "out"), skip_existing=skip)
        refused(call, RunsFailedError, f"was made of DICOM series {images[0].SeriesInstanceUID}")
    assert [path.stat().st_mtime_ns for path in results] == before and len(files(tmp_path / "out")) == len(results) + 1
