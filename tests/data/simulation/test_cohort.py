"""Simulated scans that stand in where a run was given none: whole, made once, told of, and never over others."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from unittest.mock import DEFAULT, Mock

import nibabel as nib
import numpy as np

from common.data import load_datalist
from common.data.lists.assignment import write_datalist
from common.data.lists.groups import choose_default_slice_axis
from common.data.simulation import anatomy, cohort
from common.data.simulation import subjects as simulation
from common.data.simulation.cohort import simulate_cohort, simulate_scan
from common.data.simulation.subjects import simulate_subjects
from common.degradations import GaussianProfile
from common.exams.partners import find_paired_scans
from tests.bundles.runs import degrade
from tests.refused import refused

SETTINGS = {"subjects": 3, "contrasts": "t1w", "spacing": 4.0}
DATALIST = {"hr": "*/*_t1w.nii.gz", "split": [1, 0, 1, 1]}


def contents(folder):
    """Files below a folder, without the one that says how it was made."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "simulated.json")
    return {path.relative_to(folder): path.read_bytes() for path in files}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_cohort_is_made_once_and_as_by_hand(tmp_path, capsys, monkeypatch):
    folder, part = tmp_path / "out" / "data", tmp_path / "out" / ".part-data"
    make = partial(simulate_cohort, str(folder), DATALIST, **SETTINGS)
    # Of a run with other settings that was killed, and then of one that was killed while it made the third subject.
    (part / "sub-009").mkdir(parents=True)
    (part / "sub-009" / "sub-009_t1w.nii.gz").write_text("other")
    with monkeypatch.context() as patch:
        killed = Mock(wraps=simulation._save_volume, side_effect=[DEFAULT, DEFAULT, KeyboardInterrupt])
        patch.setattr(simulation, "_save_volume", killed)
        refused(make, KeyboardInterrupt)
    finished = times(part)[part / "sub-001" / "sub-001_t1w.nii.gz"]
    assert make() == str(folder)
    (said,) = capsys.readouterr().out.splitlines()
    assert all(word in said for word in ("3 simulated heads", str(folder), "--dataset_dir DIR"))
    assert len(load_datalist(str(folder), "source", "hr")) == 1
    made, written = contents(folder), times(folder)
    assert written[folder / "sub-001" / "sub-001_t1w.nii.gz"] == finished and not part.exists()
    simulate_subjects(str(tmp_path / "by_hand"), **SETTINGS)
    write_datalist(str(tmp_path / "by_hand"), **DATALIST)
    assert made == contents(tmp_path / "by_hand")
    capsys.readouterr()
    make()
    assert times(folder) == written and not capsys.readouterr().out
    words = f"{folder} is in the way", f"--dataset_dir {folder}"
    refused(lambda: make(subjects=4), FileExistsError, *words, "others")
    (folder / "simulated.json").unlink()
    refused(make, FileExistsError, *words, "something else")
    assert contents(folder) == made and choose_default_slice_axis(str(folder)) == "auto"


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path):
    together, made = Barrier(4), []

    def process(_):
        together.wait()
        cohort._make_once(tmp_path / "data", {"subjects": 1}, made.append)
        return json.loads((tmp_path / "data" / "simulated.json").read_text())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(process, range(4))) == [{"subjects": 1}] * 4 and len(made) == 1


def test_without_nilearn_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setattr(anatomy, "load_template", anatomy.load_template.__wrapped__)
    words = "no --dataset_dir", "nilearn", "'.[demo]'", "--dataset_dir DIR"
    refused(lambda: simulate_cohort(str(tmp_path / "data"), DATALIST, **SETTINGS), ModuleNotFoundError, *words)
    assert not (tmp_path / "data").exists()


def test_a_scan_is_what_the_degradation_makes_of_a_head_and_its_guide_is_found(tmp_path, capsys):
    degradation = GaussianProfile((2, 2, 1))
    folder = simulate_scan(str(tmp_path / "scan"), degradation, "t2w", "t1w", spacing=4.0)
    assert folder == str(tmp_path / "scan" / "2x2x1") and choose_default_slice_axis(folder) == "SI"
    (said,) = capsys.readouterr().out.splitlines()
    assert "a simulated t2w scan" in said and "--dataset_dir FOLDER_OR_FILE" in said
    (pair,) = find_paired_scans(folder, "**/*_t2w.nii.gz", "**/*_t1w.nii.gz")
    hr, lr, guide = (nib.load(path) for path in (f"{folder}/simulated_t2w_hr.nii.gz", pair["image"], pair["guide"]))
    assert guide.shape == hr.shape and np.array_equal(guide.affine, hr.affine)
    whole = tuple(slice(n // f * f) for n, f in zip(hr.shape, degradation.factors, strict=True))
    expected, affine = degrade(hr.get_fdata()[whole], hr.affine, degradation)
    assert np.abs(lr.get_fdata() - expected).max() <= 0.5 and lr.get_fdata().max() > 500
    np.testing.assert_allclose(lr.affine, affine, atol=1e-5)
    alone = simulate_scan(str(tmp_path / "scan"), GaussianProfile((1, 1, 4)), spacing=4.0)
    assert alone == str(tmp_path / "scan" / "1x1x4" / "simulated_t1w.nii.gz") and nib.load(alone).shape[2] < 20
