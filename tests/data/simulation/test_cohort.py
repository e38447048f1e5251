"""Simulated scans that stand in where a run was given none: whole, made once, told of, and never over others."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from unittest.mock import DEFAULT, Mock

from common.data import load_datalist
from common.data.lists.groups import choose_default_slice_axis
from common.data.simulation import anatomy
from common.data.simulation import subjects as simulation
from common.data.simulation.subjects import simulate_subjects
from common.program import cohort
from common.program.cohort import simulate_cohort
from common.program.datalist.assignment import write_datalist
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
    refused(make, FileExistsError, *words)
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
