"""Simulated scans that stand in where a run was given none: whole, made once, told of, and never over others."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import nibabel as nib
import numpy as np
import pytest

from common.commands import simulate as simulation
from common.commands.datalist import write_datalist
from common.commands.simulate import simulate
from common.data import find_pairs, load_datalist
from common.data.simulation import anatomy, cohort
from common.data.simulation.cohort import simulated_cohort, simulated_scan, slice_axis_in
from common.degradations import GaussianProfile
from tests.bundles.runs import degrade

SETTINGS = {"subjects": 3, "contrasts": "t1w", "spacing": 4.0}
DATALIST = {"hr": "*/*_t1w.nii.gz", "split": [1, 0, 1, 1]}


def contents(folder):
    """Files below a folder, without the one that says how it was made."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "simulated.json"}


def killed_in_the_third(save):
    def until(volume, affine, path):
        if "sub-003" in path.name:
            raise KeyboardInterrupt
        save(volume, affine, path)

    return until


def test_a_cohort_is_made_once_and_as_by_hand(tmp_path, capsys):
    folder = tmp_path / "out" / "data"
    # Of a run with other settings that was killed, and then of one that was killed while it made the third subject.
    (tmp_path / "out" / ".part-data" / "sub-009").mkdir(parents=True)
    (tmp_path / "out" / ".part-data" / "sub-009" / "sub-009_t1w.nii.gz").write_text("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_save", killed_in_the_third(simulation._save))
        with pytest.raises(KeyboardInterrupt):
            simulated_cohort(str(folder), DATALIST, **SETTINGS)
    (first,) = (tmp_path / "out" / ".part-data").rglob("sub-001_t1w.nii.gz")
    finished = first.stat().st_mtime_ns
    assert simulated_cohort(str(folder), DATALIST, **SETTINGS) == str(folder)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "3 simulated heads" in said[0] and str(folder) in said[0]
    assert "--dataset_dir DIR" in said[0] and "demo.json" in said[0]
    assert len(load_datalist(str(folder), "source", "hr")) == 1
    made = contents(folder)
    assert (folder / "sub-001" / "sub-001_t1w.nii.gz").stat().st_mtime_ns == finished
    assert not (tmp_path / "out" / ".part-data").exists()
    simulate(str(tmp_path / "by_hand"), **SETTINGS)
    write_datalist(str(tmp_path / "by_hand"), **DATALIST)
    assert made == contents(tmp_path / "by_hand")
    capsys.readouterr()

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    simulated_cohort(str(folder), DATALIST, **SETTINGS)
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")} and not capsys.readouterr().out
    with pytest.raises(FileExistsError, match=rf"{folder} is in the way .* others, .*--dataset_dir {folder}"):
        simulated_cohort(str(folder), DATALIST, **{**SETTINGS, "subjects": 4})
    (folder / "simulated.json").unlink()
    with pytest.raises(FileExistsError, match=rf"{folder} is in the way .* something else"):
        simulated_cohort(str(folder), DATALIST, **SETTINGS)
    assert contents(folder) == made and slice_axis_in(str(folder)) == "auto"


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path):
    together, made = Barrier(4), []

    def process():
        together.wait()
        cohort._make_once(tmp_path / "data", {"subjects": 1}, made.append)
        return json.loads((tmp_path / "data" / "simulated.json").read_text())

    with ThreadPoolExecutor(4) as pool:
        found = [job.result() for job in [pool.submit(process) for _ in range(4)]]
    assert found == [{"subjects": 1}] * 4 and len(made) == 1


def test_without_nilearn_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setattr(anatomy, "template", anatomy.template.__wrapped__)
    with pytest.raises(
        ModuleNotFoundError, match=r"no --dataset_dir is given.*nilearn.*'\.\[demo\]'.*--dataset_dir DIR"
    ):
        simulated_cohort(str(tmp_path / "data"), DATALIST, **SETTINGS)
    assert not (tmp_path / "data").exists()


def test_a_scan_is_what_the_degradation_makes_of_a_head(tmp_path, capsys):
    """And its guide is found, though it lies below the folder of the results."""
    degradation = GaussianProfile((2, 2, 1))
    folder = simulated_scan(str(tmp_path / "scan"), degradation, "t2w", "t1w", spacing=4.0)
    assert folder == str(tmp_path / "scan" / "2x2x1") and slice_axis_in(folder) == "SI"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "a simulated t2w scan" in said[0] and "--dataset_dir FOLDER_OR_FILE" in said[0]
    (pair,) = find_pairs(folder, "**/*_t2w.nii.gz", "**/*_t1w.nii.gz")
    hr, lr, guide = (nib.load(path) for path in (f"{folder}/simulated_t2w_hr.nii.gz", pair["image"], pair["guide"]))
    assert guide.shape == hr.shape and np.array_equal(guide.affine, hr.affine)
    whole = tuple(slice(n // f * f) for n, f in zip(hr.shape, degradation.factors, strict=True))
    expected, affine = degrade(hr.get_fdata()[whole], hr.affine, degradation)
    assert np.abs(lr.get_fdata() - expected).max() <= 0.5 and lr.get_fdata().max() > 500
    np.testing.assert_allclose(lr.affine, affine, atol=1e-5)
    alone = simulated_scan(str(tmp_path / "scan"), GaussianProfile((1, 1, 4)), spacing=4.0)
    assert alone == str(tmp_path / "scan" / "1x1x4" / "simulated_t1w.nii.gz") and nib.load(alone).shape[2] < 20
