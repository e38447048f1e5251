"""The queue of the papers' tables."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from common.override_checks import check_overrides
from common.start import read_arguments
from common.tables.rows import read_table_rows
from common.tables.runs import list_runs, make_command_words
from tests.benchmarks.queue import __main__ as queue

from .bundles import runs
from .bundles.runs import ROOT

LINE = dict.fromkeys(queue.COLUMNS, "")
RATES = {"rate": [1, 2]}


def line(row, set_name, psnr, choice="", seed="0", table="T"):
    return {
        **LINE,
        "paper": "P",
        "table": table,
        "row": row,
        "set": set_name,
        "psnr": str(psnr),
        "choice": choice,
        "seed": seed,
    }


def listed(rows, results):
    rows = [{"paper": "P", "table": "T", **row} for row in rows]
    units = [unit for unit in queue.list_units(rows, results) if not unit.is_done(results)]
    return [(unit.row["table"], unit.label, unit.seed, unit.choice, unit.trial) for unit in units]


def test_what_comes_next():
    like = {"paper": "P", "table": "T"}
    rows = [
        {"rows": ["a, with data consistency"]},
        {"rows": ["b"], "choose": RATES},
        {"rows": ["c"], "choose": RATES},
        {"rows": ["b"], "like": like, "seeds": [1, 2]},
        {"best": {"rank": 1, "of": ["b", "c"]}, "like": like, "seeds": [1]},
        {"rows": [{"name": "d"}], "table": "U", "like": {**like, "row": "b"}},
    ]
    trials = [("T", name, 0, f"rate={rate}", True) for name in "bc" for rate in (1, 2)]
    assert listed(rows, []) == [("T", "a", 0, "", False), *trials]
    # A value is chosen when all its trials are done, the best row when all rows were tried.
    results = [line("a", "same scanner", 30), line("b", "tried", 29, "rate=1"), line("b", "tried", 30.5, "rate=2")]
    chosen = [("T", "b", seed, "rate=2", False) for seed in (0, 1, 2)]
    assert listed(rows, results) == [chosen[0], *trials[2:], *chosen[1:], ("U", "d", 0, "rate=2", False)]
    results += [line("c", "tried", 31, "rate=1"), line("c", "tried", 9, "rate=2")]
    results += [line("b", "same scanner", 30, "rate=2"), line("b", "same scanner", 30, "rate=2", "1")]
    c = [("T", "c", seed, "rate=1", False) for seed in (0, 1)]
    assert listed(rows, results) == [c[0], chosen[2], c[1], ("U", "d", 0, "rate=2", False)]


def test_each_row_is_one_that_ablate_can_run(tmp_path):
    book, results, units = queue.read_book(), [], {}
    while new := [unit for unit in queue.list_units(book["rows"], results) if unit.name not in units]:
        units |= {unit.name: unit for unit in new}
        for unit in new:
            labels = {"paper": unit.row["paper"], "table": unit.row["table"], "row": unit.label, "choice": unit.choice}
            results.append({**LINE, **labels, "set": "tried", "psnr": "30", "seed": "0"} if unit.trial else LINE)
    assert len({unit.row["paper"] for unit in units.values()}) == 4
    checked = set()
    for unit in units.values():
        assert {*unit.sets.values(), unit.row["train"]} <= {None, *book["datalists"]}
        keys, content = unit.row["keys"], json.dumps({"queue": queue.make_table(unit, ROOT)})
        if (content, str(keys)) in checked:
            continue
        checked.add((content, str(keys)))
        (tmp_path / "table.json").write_text(content)
        keys = {key: value for key, value in keys.items() if key not in ("size", "folds") and value is not None}
        for run in list_runs(read_table_rows(None, str(tmp_path / "table.json")), tmp_path, keys, 1):
            check_overrides(read_arguments(make_command_words(run, False, evaluate=True)))


@pytest.mark.slow
def test_a_row_that_was_killed_gives_the_same_figures(tmp_path):
    tree, volumes = tmp_path / "tree", tmp_path / "volumes"
    for folder in ("common", "bundles/srcnn", "tests/benchmarks/queue"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    for package in ("tests", "tests/benchmarks"):
        (tree / package / "__init__.py").touch()
    for i in range(5):
        runs.save(volumes / f"person_0{i}_t1w.nii.gz", runs.phantom(i))
    groups = {"hr": "*.nii.gz", "source": "*_00_*,*_01_*", "target": "*_02_*", "validation": "*_03_*", "test": "*_04_*"}
    row = {"paper": "P", "table": "T", "bundle": "bundles/srcnn", "of": [], "sets": {"same": "people"}, "minutes": 1}
    row |= {"train": "people", "rows": [{"name": "SRCNN"}], "choose": {"learning_rate": [1e-3, 1e-9]}}
    row |= {"tried_on": "tried", "trial_keys": {"max_epochs": 1}, "trial_share": 0.1}
    keys = {"size": "tiny", "slice_axis": "SI", "max_epochs": 400, "epoch_length": 50, "val_interval": 50}
    tried = {"hr": "*_03_*", "test": "*.nii.gz"}
    book = {"keys": keys, "defaults": {}, "datalists": {"people": groups, "tried": tried}, "groups": [{"rows": [row]}]}
    (tree / "tests/benchmarks/queue/rows.json").write_text(json.dumps(book))
    subprocess.run(
        "git init -q; git add -A; git -c user.name=n -c user.email=e commit -qm m", shell=True, cwd=tree, check=True
    )
    csv = tree / "tests/benchmarks/queue/results.csv"
    command = [sys.executable, "-m", "tests.benchmarks.queue", "--volumes", volumes]

    def finish(folder, *more):
        done = subprocess.run([*command, "--folder", folder, *more], cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "takes 1 minutes" in finish(tmp_path / "a", "--seconds", "30") and len(queue.read_lines(csv)) == 2
    finish(tmp_path / "a")
    expected = queue.read_lines(csv)
    assert [each["choice"] for each in expected][2:] == ["learning_rate=0.001"] and expected[2]["iterations"] == "20000"
    csv.unlink()
    finish(tmp_path / "b", "--seconds", "30")
    with subprocess.Popen([*command, "--folder", tmp_path / "b"], cwd=tree) as begun:
        while not list(tmp_path.glob("b/rows/*seed_0/people/SRCNN/models/training_state.pt")):
            assert begun.poll() is None
            os.sched_yield()
        begun.send_signal(signal.SIGKILL)
    assert (
        "goes on"
        in subprocess.run(
            [*command, "--folder", tmp_path / "b", "--seconds", "22"], cwd=tree, capture_output=True, text=True
        ).stderr
    )
    finish(tmp_path / "b")
    of_time = ("seconds",)
    assert [{k: v for k, v in each.items() if k not in of_time} for each in queue.read_lines(csv)] == [
        {k: v for k, v in each.items() if k not in of_time} for each in expected
    ]
    assert time
