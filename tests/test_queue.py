"""The queue of the papers' tables."""

import json
import shutil
import subprocess
import sys

import pytest

from common.override_checks import check_overrides
from common.start import read_arguments
from common.tables.rows import read_table_rows
from common.tables.runs import list_runs, make_command_words
from tests.benchmarks.queue import __main__ as queue
from tests.benchmarks.queue.units import list_units, make_table, read_book

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


def listed(rows, results, curves=()):
    rows = [{"paper": "P", "table": "T", **row} for row in rows]
    units = [unit for unit in list_units(rows, results, curves) if not unit.is_done(results)]
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
    # A value is chosen when all its trials are done, the best row when all rows are trained.
    results = [line("a", "same scanner", 30), line("b", "tried", 29, "rate=1"), line("b", "tried", 30.5, "rate=2")]
    results.append(line("c", "tried", 31, "rate=1"))
    chosen = [("T", "b", seed, "rate=2", False) for seed in (0, 1, 2)]
    d = ("U", "d", 0, "rate=2", False)
    assert listed(rows, results) == [chosen[0], trials[3], *chosen[1:], d]
    results += [line("c", "tried", 9, "rate=2"), line("b", "same scanner", 30, "rate=2")]
    results.append(line("b", "same scanner", 30, "rate=2", "1"))
    c = [("T", "c", seed, "rate=1", False) for seed in (0, 1)]
    best = [{**line("b", "", 30), "trial": "False"}, {**line("c", "", 40), "trial": "True"}]
    assert listed(rows, results, best) == [c[0], chosen[2], d]
    best += [{**line("c", "", psnr), "trial": "False"} for psnr in (31, 29)]
    assert listed(rows, results, best) == [c[0], chosen[2], c[1], d]


def test_each_row_is_one_that_ablate_can_run(tmp_path):
    book, results, units = read_book((queue.HERE / "rows.json").read_text()), [], {}
    rivals = ("CycleGAN", "Pseudo SR", "DASR", "Blind-SR")
    curves = [{**line(name, "", 30, table="III"), "paper": "Liu et al. 2023", "trial": "False"} for name in rivals]
    while new := [unit for unit in list_units(book["rows"], results, curves) if unit.name not in units]:
        units |= {unit.name: unit for unit in new}
        for unit in new:
            labels = {"paper": unit.row["paper"], "table": unit.row["table"], "row": unit.label, "choice": unit.choice}
            results.append({**LINE, **labels, "set": "tried", "psnr": "30", "seed": "0"} if unit.trial else LINE)
    assert len({unit.row["paper"] for unit in units.values()}) == 4
    checked = set()
    for unit in units.values():
        assert {*unit.sets.values(), unit.row["train"]} <= {None, *book["datalists"]}
        keys, content = unit.row["keys"], json.dumps({"queue": make_table(unit, ROOT)})
        if (content, str(keys)) in checked:
            continue
        checked.add((content, str(keys)))
        (tmp_path / "table.json").write_text(content)
        keys = {key: value for key, value in keys.items() if key not in ("size", "folds") and value is not None}
        for run in list_runs(read_table_rows(None, str(tmp_path / "table.json")), tmp_path, keys):
            check_overrides(read_arguments(make_command_words(run, False, evaluate=True)))


@pytest.mark.slow
def test_a_row_that_was_killed_gives_the_same_figures(tmp_path):
    tree, volumes = tmp_path / "tree", tmp_path / "volumes"
    for folder in ("common", "bundles/srcnn", "tests/benchmarks/queue"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    for name, content in (("tables", {}), ("tiny", {**runs.TINY["srcnn"].network, **runs.TINY["srcnn"].training})):
        (tree / f"bundles/srcnn/configs/{name}.json").write_text(json.dumps(content))
    for i in range(5):
        runs.save(volumes / f"person_0{i}_t1w.nii.gz", runs.phantom(i))
    people = {"hr": "*.nii.gz", "source": "*_00_*,*_01_*", "target": "*_02_*", "validation": "*_03_*", "test": "*_04_*"}
    row = {"paper": "P", "table": "T", "bundle": "bundles/srcnn", "of": [], "rows": [{"name": "SRCNN"}], "minutes": 1}
    row |= {"train": "people", "sets": {"same": "people"}, "choose": {"learning_rate": [1e-3, 1e30]}}
    row |= {"tried_on": "tried", "trial_keys": {"max_epochs": 1}, "trial_share": 0.1}
    keys = {"size": "tiny", "slice_axis": "SI", "max_epochs": 20, "epoch_length": 50, "val_interval": 10}
    people["volumes"] = {"hr": 5}
    datalists = {"people": people, "tried": {"volumes": {"hr": 1}, "hr": "*_03_*", "test": "*_03_*"}}
    book = {"keys": keys, "defaults": {}, "datalists": datalists, "groups": [{"rows": [row]}]}
    (tree / "tests/benchmarks/queue/rows.json").write_text(json.dumps(book))
    for words in ("init -q", "add -A", "-c user.name=n -c user.email=e commit -qm m"):
        subprocess.run(["git", *words.split()], cwd=tree, check=True)
    results = tree / "tests/benchmarks/queue/results.csv"
    command = [sys.executable, "-m", "tests.benchmarks.queue", "--volumes", volumes, "--folder"]

    def read_figures():
        return [{key: value for key, value in each.items() if key != "seconds"} for each in queue.read_lines(results)]

    def run(*words):
        return subprocess.run([*command, *words], cwd=tree, capture_output=True, text=True)

    done = run(tmp_path / "a", "--seconds=0")
    assert done.returncode == 0 and "trial of learning_rate=0.001: takes 0 minutes" in done.stdout
    (volumes / "person_04_t1w.nii.gz").rename(tmp_path / "left.nii.gz")
    done = run(tmp_path / "a")
    assert (
        done.returncode == 1 and "4 instead of 5 volumes *.nii.gz in --volumes" in done.stdout and not results.exists()
    )
    (tmp_path / "left.nii.gz").rename(volumes / "person_04_t1w.nii.gz")
    assert run(tmp_path / "a").returncode == 0
    expected = read_figures()
    assert [each["set"] for each in expected] == ["tried", "tried", "same"] and expected[2]["iterations"] == "1000"
    assert {expected[0]["choice"], expected[2]["choice"]} == {"learning_rate=0.001"} and expected[1]["psnr"] == "-inf"
    assert float(expected[2]["psnr_dc"]) > 20
    results.unlink()
    with subprocess.Popen([*command, tmp_path / "b"], cwd=tree) as begun:
        while not list(tmp_path.glob("b/rows/*seed_0/people/SRCNN/models/training_state.pt")):
            with pytest.raises(subprocess.TimeoutExpired):
                begun.wait(0.2)
        begun.kill()
    assert len(read_figures()) == 2
    (tree / "common" / "graph.py").write_text("the work tree does not matter")
    assert run(tmp_path / "b").returncode == 0
    assert read_figures() == expected
