"""``mri-sr T1W T2W FLAIR --exam``: each contrast of an exam becomes thin, on one grid."""

import json
from functools import partial

import nibabel as nib
import numpy as np

from common.inferers import multi_contrast
from common.program.commands.super_resolve import super_resolve
from common.runtime.errors import RunsFailedError

from ...bundles import runs
from ...refused import has, refused
from ...stacks.phantom import Phantom, grid, moved
from .test_together import Scanned, psnr

SIZE = 48
INNER = np.s_[4:-4, 4:-4, 4:-4]
exam = partial(super_resolve, exam=True, adapt_iterations=0)


def save(path, across, contrast=1, motion=None, scale=1000.0, axes="", dtype=np.float32, fill=None):
    """A stack of a small head, and its path."""
    shape, affine = grid(across, size=SIZE)
    values = scale * Phantom(3, contrast).stack(shape, affine, None if motion is None else np.linalg.inv(motion))
    if fill is not None:
        values[:4, :4] = fill
    return str(runs.save(path, values, affine, dtype=dtype, axes=axes))


def test_three_contrasts_on_one_grid(tmp_path, capsys):
    """In their own units and types; one that lies elsewhere is registered; two stacks of one contrast are combined."""
    motion = moved(np.array([0, 4.0, 0, 0, 0, 3.0]))
    t1 = save(tmp_path / "p_T1W.nii.gz", 2, scale=5000, axes="LPS", dtype=np.int16)
    t2 = save(tmp_path / "p_T2W.nii.gz", 0, contrast=-1, motion=motion, scale=30, axes="SAR", fill=-500)
    flair = [save(tmp_path / f"p_{plane}_FLAIR.nii.gz", across) for plane, across in (("ax", 2), ("cor", 1))]
    damaged = tmp_path / "p_PD.nii.gz"
    damaged.write_bytes(b"no image")
    out = {"output_dir": str(tmp_path / "out")}
    refused(lambda: exam(t1, t2, *flair, str(damaged), **out), RunsFailedError, "1 of 4 scans", "p_PD.nii.gz")
    has(capsys.readouterr().out, "p_T2W: registered to ")
    results = {name: nib.load(tmp_path / "out" / f"p_{name}_sr.nii.gz") for name in ("T1W", "T2W", "FLAIR")}
    assert len([*(tmp_path / "out").glob("*.nii.gz")]) == 3
    assert results["T1W"].get_data_dtype() == np.int16 and results["T2W"].get_data_dtype() == np.float32
    for name, scale, contrast, least in (("T1W", 5000, 1, 40), ("T2W", 30, -1, 31), ("FLAIR", 1000, 1, 50)):
        result = results[name]
        assert result.shape == (SIZE,) * 3 and np.allclose(result.affine, results["T1W"].affine, atol=1e-4)
        true = Phantom(3, contrast).on(result.shape, result.affine)
        # what moved out of the field of view is not measured
        assert psnr((result.get_fdata() / scale)[INNER], true[INNER]) > least, name
    told = json.loads((tmp_path / "out" / "p_T1W_sr.json").read_text())
    assert len(told["Sources"]) == 4
    assert told["SuperResolution"]["Adapted"]["p_T1W.nii.gz"]["Edges"] == ["p_T2W.nii.gz", "p_ax_FLAIR.nii.gz"]
    exam(t1, t2, *flair, skip_existing=True, **out)
    has(capsys.readouterr().out, " skipped, in ")


def test_edges_are_shared_and_grey_values_are_not(tmp_path, monkeypatch):
    """Another contrast sharpens where its slices are fine; its units change nothing."""
    t1 = save(tmp_path / "T1.nii.gz", 2)
    made = {}
    for name, scale, slope in (("unit", 100.0, 0.1), ("other", 7e4, 0.1), ("apart", 100.0, 1e9)):
        monkeypatch.setattr(multi_contrast, "_SLOPE", slope)
        t2 = save(tmp_path / name / "T2.nii.gz", 0, contrast=-1, scale=scale)
        exam(t1, t2, output_dir=str(tmp_path / name / "out"))
        result = nib.load(tmp_path / name / "out" / "T1_sr.nii.gz")
        made[name] = result.get_fdata()
    true = Phantom(3).on(result.shape, result.affine)
    assert np.abs(made["unit"] - made["other"]).max() < 2
    assert psnr(made["unit"] / 1000, true) > psnr(made["apart"] / 1000, true) + 0.1


def test_the_contrasts_of_a_dicom_study(tmp_path):
    own = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    t1 = {"EchoTime": "10", "RepetitionTime": "500"}
    series = (("axial", "t2 tse tra", {}), ("coronal", "t2 tse cor", {}), ("sagittal", "t1 se sag", t1))
    for number, (plane, named, more) in enumerate(series):
        series = {**own, "SeriesDescription": named, "SeriesNumber": number + 2, **more}
        Scanned(plane=plane, shape=(48, 48, 12), attributes=series).save(tmp_path / "in" / plane)
    exam(str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    results = {path.name: nib.load(path) for path in (tmp_path / "out").glob("*.nii.gz")}
    assert set(results) == {"t2_tse_sr.nii.gz", "4_t1_se_sag_sr.nii.gz"}
    assert len([*(tmp_path / "out").glob("*_dicom/*")]) == 2
    first, second = results.values()
    assert first.shape == second.shape and np.allclose(first.affine, second.affine, atol=1e-4)


def test_what_an_exam_goes_without(tmp_path):
    t1, t2 = (save(tmp_path / f"{name}.nii.gz", 2) for name in ("T1", "T2"))
    refused(lambda: exam(t1, t2, together=True), ValueError, "--together")
    refused(lambda: exam(t1, t2, guide=t2), ValueError, "--guide")
    refused(lambda: exam(t1, str(tmp_path / "out")), FileNotFoundError, "--exam")
    refused(lambda: super_resolve(t1, t2, exam="auto"), ValueError, "--exam is 'auto'")
