"""``mri-sr A B C --together``: stacks of one exam become one volume."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from common.__main__ import main
from common.inferers.multi_stack import StacksInferer
from common.program.commands.super_resolve import super_resolve
from common.runtime.errors import RunsFailedError

from ...bundles import runs
from ...clients import dicom
from ...refused import has, refused
from ...stacks.phantom import Phantom, grid, moved

together = partial(super_resolve, together=True, adapt_iterations=0)


def stack(path, phantom, across, turned=(0, 0, 0), motion=None, axes="", dtype=np.float32, brightness=1.0, lowest=0):
    shape, affine = grid(across, turned)
    head = None if motion is None else np.linalg.inv(motion)
    values = 1000 * brightness * phantom.stack(shape, affine, head)
    values[0, 0, 0] += lowest
    runs.save(path, values, affine, dtype=dtype, axes=axes)
    return str(path)


def displacements(result: np.ndarray, true: np.ndarray) -> np.ndarray:
    """By how many voxels each octant of a result lies off the truth along each axis, to first order."""
    slopes = np.gradient(true)
    halves = [(slice(None, n // 2), slice(n // 2, None)) for n in true.shape]
    found = []
    for octant in ((x, y, z) for x in halves[0] for y in halves[1] for z in halves[2]):
        columns = np.stack([s[octant].ravel() for s in slopes] + [true[octant].ravel()], axis=1)
        missed = (result - true)[octant].ravel()
        found.append(np.linalg.lstsq(columns, missed, rcond=None)[0][:3])
    return np.abs(found)


def psnr(result: np.ndarray, true: np.ndarray) -> float:
    return -10 * np.log10(np.mean((result - true) ** 2))


def test_three_oblique_stacks_of_a_head_that_moves(tmp_path, capsys):
    """In the place of the first; what is of another contrast, or damaged, is left out with its reason."""
    phantom, rng = Phantom(1), np.random.default_rng(1)
    motions = [moved(np.concatenate([rng.uniform(-5, 5, 3), rng.uniform(-5, 5, 3)])) for _ in range(2)]
    files = [
        stack(tmp_path / "ax.nii.gz", phantom, 2, rng.uniform(-15, 15, 3), axes="LPS", dtype=np.int16),
        stack(tmp_path / "cor.nii.gz", phantom, 1, rng.uniform(-15, 15, 3), motions[0], axes="SAR", brightness=3.0),
        stack(tmp_path / "sag.nii.gz", phantom, 0, rng.uniform(-15, 15, 3), motions[1], brightness=0.5, lowest=-100),
        stack(tmp_path / "t2.nii.gz", Phantom(1, contrast=-1), 0),
        str(tmp_path / "bad.nii.gz"),
    ]
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    together(*files, output_dir=str(tmp_path / "out"))
    said = capsys.readouterr().out
    has(said, "t2.nii.gz: left out", "bad.nii.gz")
    (alone, path) = sorted((tmp_path / "out").glob("*_sr.nii.gz"), key=lambda path: path.name != "t2_sr.nii.gz")
    assert nib.load(alone).shape == (64, 64, 64)
    result, first = nib.load(path), nib.load(files[0])
    assert result.get_data_dtype() == np.int16 and nib.aff2axcodes(result.affine) == ("L", "P", "S")
    corners = np.array([[-0.5, -0.5, -0.5, 1], [*(np.array(first.shape) - 0.5), 1]]).T
    ours = np.array([[-0.5, -0.5, -0.5, 1], [*(np.array(result.shape) - 0.5), 1]]).T
    assert np.allclose(result.affine @ ours, first.affine @ corners, atol=1e-3)
    assert np.allclose(np.linalg.norm(result.affine[:3, :3], axis=0), 1, atol=1e-5)
    true, found = phantom.on(result.shape, result.affine), result.get_fdata() / 1000
    assert displacements(found, true).max() < 0.05
    one = nib.load(files[0]).get_fdata() / 1000
    nearest = np.repeat(one, 4, axis=2)
    assert psnr(found, true) > psnr(nearest, true) + 8
    told = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert len(told["Sources"]) == 4 and "Scale" not in told["SuperResolution"]
    misfits = [known["Misfit"] for known in told["SuperResolution"]["Adapted"].values() if "LeftOut" not in known]
    assert len(misfits) == 3 and max(misfits) < 0.05, misfits
    assert told["SuperResolution"]["OutsideTraining"].startswith("unlike the training scans in ")
    assert f"than cubic of {told['SuperResolution']['CubicOf']}, " in told["SuperResolution"]["Verdict"]
    has(said, "misses its stacks by ")
    moves = {name: known.get("Moved") for name, known in told["SuperResolution"]["Adapted"].items()}
    widths = [known["Profile"] for known in told["SuperResolution"]["Adapted"].values() if "LeftOut" not in known]
    assert np.allclose(widths, 1, atol=0.1), widths
    assert moves["ax.nii.gz"] is None and np.abs(moves["cor.nii.gz"]).max() > 1


def test_a_guide_of_another_contrast(tmp_path):
    """One stack is enough with it; it lies elsewhere, and its grey values stay out of the result."""
    phantom, motion = Phantom(6), moved(np.array([3.0, -4.0, 2.0, 2.0, -3.0, 1.0]))
    ax = stack(tmp_path / "ax.nii.gz", phantom, 2, dtype=np.int16)
    shape, affine = grid(0, thick=1)
    guide = runs.save(tmp_path / "guide.nii.gz", 500 * Phantom(6, contrast=-1).on(shape, affine), motion @ affine)
    true = {}
    for name, options in (("alone", {}), ("guided", {"guide": str(guide)})):
        run = super_resolve if name == "alone" else partial(super_resolve, together=True)
        run(ax, output_dir=str(tmp_path / name), adapt_iterations=0, **options)
        result = nib.load(tmp_path / name / "ax_sr.nii.gz")
        true[name] = psnr(result.get_fdata() / 1000, phantom.on(result.shape, result.affine))
    assert true["guided"] > true["alone"] + 0.3, true
    told = json.loads((tmp_path / "guided" / "ax_sr.json").read_text())
    assert told["Sources"] == ["ax.nii.gz", "guide.nii.gz"]


def test_what_contradicts_its_stacks_is_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(StacksInferer, "solve_alone", lambda self, start, guides=(): 0.7 * start[0])
    files = [stack(tmp_path / f"{plane}.nii.gz", Phantom(2), across) for plane, across in (("ax", 2), ("sag", 0))]
    together(*files, output_dir=str(tmp_path / "out"), spacing=2.0)
    has(capsys.readouterr().out, ": contradicts its stacks: keep cubic of ", "; warning: contradicts its stacks")


def test_on_a_grid_of_ones_own(tmp_path, capsys):
    phantom = Phantom(2)
    files = [stack(tmp_path / f"{plane}.nii.gz", phantom, across) for plane, across in (("ax", 2), ("sag", 0))]
    shape, affine = (40, 44, 36), grid(2, (5, 10, -5), thick=1)[1]
    like = runs.save(tmp_path / "like.nii.gz", np.zeros(shape), affine)
    far = affine + np.pad([[500.0]] * 3, ((0, 1), (3, 0)))
    away = runs.save(tmp_path / "away.nii.gz", np.zeros(shape), far)
    together(*files, output_dir=str(tmp_path / "out"), grid_file=str(like), spacing=2.0)
    result = nib.load(tmp_path / "out" / "ax_sag_sr.nii.gz")
    assert result.shape == shape and np.allclose(result.affine, affine, atol=1e-4)
    assert psnr(result.get_fdata() / 1000, phantom.on(shape, affine)) > 24
    together(*files, output_dir=str(tmp_path / "out"), grid_file=str(like), spacing=2.0, skip_existing=True)
    has(capsys.readouterr().out, "1 scan: 1 skipped, in ")
    off = {"output_dir": str(tmp_path / "off"), "spacing": 2.0}
    refused(lambda: together(*files, grid_file=str(away), **off), RunsFailedError, "away.nii.gz: its grid lies outside")
    refused(lambda: together(*files, grid_file=str(tmp_path / "gone.nii.gz"), **off), Exception, "gone.nii.gz")


def test_auto_finds_exams_and_their_contrasts(tmp_path, capsys):
    """By their names; what has no other scan of its exam is done by itself, and so is one that is not thick."""
    phantom = Phantom(3)
    for name, across in (("a/brain_t2_ax", 2), ("a/brain_t2_cor", 1), ("a/brain_t1_ax", 2), ("b/brain_t2_ax", 2)):
        stack(tmp_path / f"{name}.nii.gz", phantom, across)
    for patient in ("001", "002"):
        stack(tmp_path / "d" / f"{patient}_ax.nii.gz", phantom, 2)
    for acq, across in (("ax", 2), ("sag", 0)):
        stack(tmp_path / "c" / f"sub-1_acq-{acq}_T2w.nii.gz", phantom, across)
    cubes = grid(2, thick=1)
    runs.save(tmp_path / "b" / "brain_t1_3d.nii.gz", phantom.on(*cubes), cubes[1])
    main(["super-resolve", str(tmp_path), "--together", "auto", "--dry_run"])
    said = capsys.readouterr().out
    has(said, "1 x 1 x 1 mm to 0.5 x 0.5 x 0.5 mm: brain_t1_3d")
    has(said, "mm: brain_t1_ax, brain_t2 (3 stacks of 2 contrasts)")
    has(said, "stacks, 1 x 1 x 4 mm to 1 x 1 x 1 mm: sub-1_T2w (2 stacks)", "ct_guided 1x1x4")
    assert said.count("would write") == 7


class Scanned(dicom.Series):
    """A series of a phantom whose centre is that of the stack."""

    @property
    def lps(self):
        affine = super().lps
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

    @property
    def stored(self):
        values = 1000 * Phantom(5).stack(self.shape, dicom.LPS_TO_RAS @ self.lps)
        return np.rint(values).astype(np.uint16)


def test_the_dicom_series_of_an_exam(tmp_path, capsys):
    """Those of one study and weighting; the derived series is of the first."""
    own = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    for number, (plane, more) in enumerate(
        (("axial", {}), ("sagittal", {}), ("coronal", {"EchoTime": "10", "RepetitionTime": "500"}))
    ):
        named = {"SeriesDescription": f"t2 tse {plane}", "SeriesNumber": number + 2}
        series = Scanned(plane=plane, shape=(48, 48, 12), angles=(3, 5, -2), attributes={**own, **named, **more})
        series.save(tmp_path / "in" / plane)
    super_resolve(str(tmp_path / "in"), str(tmp_path / "out"), together="auto", dry_run=True)
    has(capsys.readouterr().out, "1 mm: t2_tse, 4_t2_tse_coronal (3 stacks of 2 contrasts)")
    together(str(tmp_path / "in" / "axial"), str(tmp_path / "in" / "sagittal"), output_dir=str(tmp_path / "out"))
    (path,) = (tmp_path / "out").glob("*.nii.gz")
    assert path.name == "t2_tse_sr.nii.gz"
    result = nib.load(path)
    assert psnr(result.get_fdata() / 1000, Phantom(5).on(result.shape, result.affine)) > 30
    (folder,) = (tmp_path / "out").glob("*_dicom/*")
    header = dcmread(next(folder.iterdir()))
    assert len(header.ReferencedSeriesSequence) == 2 and len(header.SourceImageSequence) == 24
    derived, affine = dicom.read_by_itk(folder)
    assert np.allclose(affine, result.affine, atol=1e-3) and np.abs(derived - result.get_fdata()).max() < 1
    told = json.loads(path.with_name("t2_tse_sr.json").read_text())
    assert len(told["Sources"]) == 2 and all("DICOM series" in source for source in told["Sources"])


def test_what_is_left_out_of_an_exam_is_done_alone(tmp_path, capsys):
    """Even where nothing is left to combine. A result of its own, which is not made twice."""
    shape, affine = grid(2, size=48)
    voxels = 1000 * Phantom(5).stack(shape, affine)
    affine[0, 3] += 500  # which no registration brings back
    ax = str(runs.save(tmp_path / "3_t2_tse_axial.nii.gz", voxels, affine))
    series = Scanned(plane="sagittal", shape=(48, 48, 12), attributes={"SeriesDescription": "t2 tse"})
    series.save(tmp_path / "t2")
    out = tmp_path / "out"
    for options in ({}, {"skip_existing": True}):
        together(ax, str(tmp_path / "t2"), output_dir=str(out), **options)
    names = ["3_t2_tse_sr", "3_t2_tse_stack2_sr"]
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    exam, alone = (json.loads((out / f"{name}.json").read_text())["SuperResolution"] for name in names)
    assert (exam["Bundle"], alone["Bundle"]) == ("stacks", "ct_guided")
    assert any("left out of 3_t2_tse" in text for text in alone["Warnings"])
    result = nib.load(out / "3_t2_tse_stack2_sr.nii.gz")
    assert psnr(result.get_fdata() / 1000, Phantom(5).on(result.shape, result.affine)) > 25
    assert len([*out.glob("*_dicom/*")]) == 1
    has(capsys.readouterr().out, "1 scan: 1 skipped, in ")


def test_what_does_not_fit_together_is_refused(tmp_path, monkeypatch):
    phantom = Phantom(4)
    ax = stack(tmp_path / "ax.nii.gz", phantom, 2)
    other = stack(tmp_path / "other.nii.gz", phantom, 0)
    out = {"output_dir": str(tmp_path / "out")}
    refused(lambda: together(ax, **out), RunsFailedError, "found 1 stack")
    refused(lambda: super_resolve(ax, bundle="stacks", **out), RunsFailedError, "--bundle stacks", "--together")
    refused(lambda: together(ax, other, scale=[1, 1, 4], bundle="ct_guided", **out), ValueError, "--scale and --bundle")
    refused(lambda: together(ax, other, spacing="fine", **out), ValueError, "--spacing is 'fine'")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e18))
    refused(lambda: together(ax, other, spacing=0.01, **out), RunsFailedError, "GiB", "--spacing 0.")
    refused(lambda: together(ax, ax, **out), RunsFailedError, "ax.nii.gz: named twice")
    km = stack(tmp_path / "cor_KM.nii.gz", phantom, 1)
    refused(lambda: together(ax, km, **out), RunsFailedError, "cor_KM.nii.gz", "--exam")
    for one, two, words in (("sub-1", "sub-2", "same person"), ("ses-1", "ses-2", "say visits")):
        pair = [stack(tmp_path / name / f"{n}.nii.gz", phantom, n) for n, name in enumerate((one, two))]
        for run in (together, partial(super_resolve, exam=True), partial(super_resolve, bundle="joint_tv", exam=True)):
            refused(partial(run, *pair, **out), RunsFailedError, one, two, words)
    super_resolve(*pair, together="visits", dry_run=True, **out)
    refused(lambda: together(str(tmp_path), "gone", **out), FileNotFoundError, "--output_dir")
    refused(lambda: super_resolve(ax, together="yes", **out), ValueError, "--together is 'yes'")


def test_one_that_is_left_of_an_exam_is_done_alone(tmp_path, capsys):
    """Whether another cannot be read to its end, shows nothing, or has no slices."""
    ax, cut = (stack(tmp_path / f"{name}.nii.gz", Phantom(4), 2) for name in ("ax", "cut"))
    packed = (tmp_path / "cut.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(packed[: len(packed) // 2])
    together(cut, ax, output_dir=str(tmp_path / "a"))
    has(capsys.readouterr().out, "ct_guided", "left out: ", "cut.nii.gz", "done alone", "1 done")
    shape, affine = grid(0)
    flat = str(runs.save(tmp_path / "flat.nii.gz", np.ones(shape), affine))
    together(ax, flat, output_dir=str(tmp_path / "b"))
    has(capsys.readouterr().out, "left out: ", "flat.nii.gz: every voxel is 1", "done alone", "1 done")
    cubes = grid(2, thick=1)
    thin = str(runs.save(tmp_path / "thin.nii.gz", Phantom(4).on(*cubes), cubes[1]))
    together(thin, ax, output_dir=str(tmp_path / "c"), dry_run=True)
    has(capsys.readouterr().out, "ct_guided", "udean_window", "has no thick slices", "2 to do")
    assert sorted(path.name for path in tmp_path.glob("?/*.nii.gz")) == ["ax_sr.nii.gz", "ax_sr.nii.gz"]


def wide(path, across, axes=""):
    """A stack whose pixels are twice as wide as they are long, and half as wide as slices are thick."""
    shape, affine = grid(across)
    voxels = 1000 * Phantom(7).stack(shape, affine)
    affine[:3, 3] += affine[:3, 1] / 2
    affine[:3, 1] *= 2
    return str(runs.save(path, (voxels[:, ::2] + voxels[:, 1::2]) / 2, affine, axes=axes))


def test_the_slice_axis_is_that_of_each_stack(tmp_path, capsys):
    """The one at which the stacks fit, or that the user names; one axis for all is for those that show none."""
    ax, cor = wide(tmp_path / "ax.nii.gz", 2), wide(tmp_path / "cor.nii.gz", 1, axes="SAR")
    sag = stack(tmp_path / "sag.nii.gz", Phantom(7), 0)
    together(ax, cor, output_dir=str(tmp_path / "out"), dry_run=True)
    has(capsys.readouterr().out, "SI is taken, at which it fits the other stacks best", "AP is taken")
    together(ax, cor, output_dir=str(tmp_path / "out"), slice_axis=["SI", "AP"])
    assert "is taken" not in capsys.readouterr().out
    result = nib.load(tmp_path / "out" / "ax_cor_sr.nii.gz")
    assert psnr(result.get_fdata() / 1000, Phantom(7).on(result.shape, result.affine)) > 30
    together(ax, sag, output_dir=str(tmp_path / "out"), slice_axis="SI", dry_run=True)
    has(capsys.readouterr().out, "sag.nii.gz: its slices run along LR, and not along --slice_axis SI")
    refused(lambda: together(ax, cor, slice_axis=["SI"]), ValueError, "names 1 axes for 2")
    refused(lambda: together(ax, cor, slice_axis="XY"), ValueError, "'XY', expected one of LR, AP, SI, auto")
    refused(lambda: super_resolve(ax, cor, slice_axis="XY"), ValueError, "'XY', expected one of LR, AP, SI, auto")
    refused(lambda: together(ax, cor, register="no"), ValueError, "--register is 'no'")


def test_a_slice_axis_that_is_impossible_is_said(tmp_path, capsys):
    """No slices run along the finest axis, so one axis for all is not for such a stack; a scan of its own has it."""
    ax, sag = wide(tmp_path / "in" / "ax.nii.gz", 2), wide(tmp_path / "in" / "sag.nii.gz", 0)
    for named in ("lr", ["LR"]):
        super_resolve(str(tmp_path / "in"), together="auto", slice_axis=named, dry_run=True)
        said = capsys.readouterr().out
        has(said, "its slices run along SI or AP, and not along --slice_axis LR; to name", "SI is taken")
        assert "sag.nii.gz: " not in said
    shown = stack(tmp_path / "shown.nii.gz", Phantom(7), 1)
    together(sag, ax, shown, slice_axis=["LR", "SI", "SI"], dry_run=True)
    has(capsys.readouterr().out, "shown.nii.gz: its slices run along AP, and not along --slice_axis SI; SI is taken")


def test_slices_of_dicom_lie_along_its_normal(tmp_path, capsys):
    """Whatever the voxel sizes are, alone and together."""
    own = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    for plane in ("axial", "coronal"):
        Scanned(plane=plane, shape=(64, 32, 20), spacing=(0.75, 1.4, 2.8), attributes=own).save(tmp_path / plane)
    both = [str(tmp_path / plane) for plane in ("axial", "coronal")]
    super_resolve(both[1], str(tmp_path / "out"), dry_run=True)
    has(capsys.readouterr().out, "ct_guided 1x1x2, 0.75 x 1.4 x 2.8 mm to 0.75 x 1.4 x 1.4 mm")
    together(*both, output_dir=str(tmp_path / "out"), dry_run=True)
    said = capsys.readouterr().out
    assert "would write" in said and "runs across" not in said


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_the_weights_are_those_of_ct_guided(factor):
    name = "model.pt" if factor == 4 else f"model_{factor}.pt"
    files = [runs.ROOT / "bundles" / bundle / "models" / name for bundle in ("ct_guided", "stacks")]
    assert files[0].read_bytes() == files[1].read_bytes()
