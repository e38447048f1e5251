"""The queue of the papers' tables."""

import json
import shutil
import subprocess
import sys

import pytest

from common.lab.queue import __main__ as queue
from common.lab.queue.units import find_start, list_units, make_table, read_book
from common.lab.tables.rows import read_table_rows
from common.lab.tables.runs import list_runs, make_command_words
from common.runtime.unknown_keys import refuse_unknown_keys
from common.start import read_arguments

from ..bundles import runs
from ..bundles.runs import ROOT

LINE = dict.fromkeys(queue.COLUMNS, "")
RATES = {"rate": [1, 2]}
START = {"save_dict": {"network": "@network_def"}, "save_dir": "@output_dir", "final_filename": "start.pt"}
SAVER = {"_target_": "CheckpointSaver", "save_final": True, **START}
LOADER = {"_target_": "CheckpointLoader", "load_path": "$@output_dir + '/../start/start.pt'"}
LOADER["load_dict"] = START["save_dict"]


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
    rows = [{"paper": "P", "table": "T", "tested": ["same scanner"], **row} for row in rows]
    units = [unit for unit in list_units(rows, results) if not unit.is_done(results)]
    return [(unit.row["table"], unit.label, unit.seed, unit.choice, unit.trial) for unit in units]


def test_what_comes_next():
    rows = [
        {"row": "a"},
        {"row": "b", "choose": RATES, "twin": ["T", "a"]},
        {"row": "c", "choose": RATES},
        {"row": "b", "like": ["T", "b"], "seeds": [1, 2]},
        {"best": ["b", "c"], "like": ["T"], "table": "V", "seeds": [1]},
        {"row": {"name": "d"}, "table": "U", "like": ["T", "b"]},
    ]
    trials = [("T", name, 0, f"rate={rate}", True) for name in "bc" for rate in (1, 2)]
    cubic = line("cubic", "same scanner", 30)
    assert listed([*rows[:1], rows[2]], []) == [("T", "a", 0, "", False), *trials[2:]]
    assert listed(rows[1:2], [cubic, line("a", "same scanner", 30.4)]) == []  # the twin did not learn
    results = [cubic, line("a", "same scanner", 30.6)]
    assert listed(rows, results) == trials
    results += [line("b", "tried", 30, "rate=1"), line("b", "tried", 30.5, "rate=2"), line("c", "tried", 31, "rate=1")]
    chosen = [("T", "b", seed, "rate=2", False) for seed in (0, 1, 2)]
    d = ("U", "d", 0, "rate=2", False)
    best = ("V", "c", 1, "rate=1", False)
    assert listed(rows, results) == [chosen[0], trials[3], *chosen[1:], d]
    results += [line("c", "tried", 9, "rate=2"), line("b", "same scanner", 30, "rate=2")]
    results.append(line("b", "same scanner", 30, "rate=2", "1"))
    assert listed(rows, results) == [("T", "c", 0, "rate=1", False), chosen[2], best, d]


def test_each_row_is_one_that_ablate_can_run(tmp_path):
    book, results, units = read_book((queue.HERE / "rows.json").read_text()), [], {}
    for row in book["rows"]:  # each twin has learned
        place = {"paper": row["paper"], "table": row["table"], "psnr": "30", "person": "p", "set": row["tested"][0]}
        results += [{**LINE, **place, "row": "cubic"}]
        results += [{**LINE, **place, "row": row["twin"][1], "psnr": "31"}] if "twin" in row else []
    while new := [unit for unit in list_units(book["rows"], results) if unit.name not in units]:
        units |= {unit.name: unit for unit in new}
        for unit in new:
            labels = {"paper": unit.row["paper"], "table": unit.row["table"], "row": unit.label, "choice": unit.choice}
            results.append({**LINE, **labels, "set": "tried", "psnr": "30", "seed": "0"} if unit.trial else LINE)
    assert {unit.row["table"] for unit in units.values()} == {row["table"] for row in book["rows"]}
    checked = set()
    for unit in units.values():
        assert {name for _, name, _ in unit.evaluations} <= book["datalists"].keys()
        assert ("start" in unit.row) == (find_start(book["rows"], unit) is not None)
        keys, content = unit.row["keys"], json.dumps({"queue": make_table(unit, ROOT)})
        if (content, str(keys)) in checked:
            continue
        checked.add((content, str(keys)))
        (tmp_path / "table.json").write_text(content)
        keys = {key: value for key, value in keys.items() if key not in ("size", "folds") and value is not None}
        for run in list_runs(read_table_rows(None, str(tmp_path / "table.json")), tmp_path, keys):
            refuse_unknown_keys(read_arguments(make_command_words(run, False, evaluate=True)))


@pytest.mark.slow
def test_a_row_that_was_killed_gives_the_same_figures(tmp_path):
    tree, volumes = tmp_path / "tree", tmp_path / "volumes"
    for folder in ("common", "bundles/srcnn"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    for name, content in (("tables", {}), ("tiny", {**runs.TINY["srcnn"].network, **runs.TINY["srcnn"].training})):
        (tree / f"bundles/srcnn/configs/{name}.json").write_text(json.dumps(content))
    for i in range(5):
        runs.save(volumes / f"person_0{i}_t1w.nii.gz", runs.phantom(i))
    people = {"volumes": {"hr": 5}, "hr": "*.nii.gz", "source": "*_00_*,*_01_*", "target": "*_02_*"}
    people |= {"validation": "*_03_*", "test": "*_04_*"}
    row = {"paper": "P", "table": "T", "bundle": "bundles/srcnn", "of": [], "data": "people", "minutes": 1}
    row |= {
        "tried_on": "tried",
        "trains": True,
        "tested": ["same"],
        "sets": {"same": ["person_04"]},
        "trial_keys": {"max_epochs": 1},
        "trial_share": 0.1,
    }
    start = {"row": {"name": "start", "override": {"train#handlers": [SAVER]}}, "keys": {"max_epochs": 1}}
    next_row = {"row": {"name": "SRCNN", "override": {"train#handlers": [LOADER]}}, "start": ["T", "start"]}
    next_row |= {
        "choose": {"learning_rate": [1e-3, 1e30]},
        "also": [{"table": "U", "keys": {"evaluate#report#score_over": "slices"}}],
    }
    book = {"keys": {"size": "tiny", "slice_axis": "SI", "max_epochs": 20, "epoch_length": 50, "val_interval": 10}}
    book |= {"defaults": row, "groups": [{"rows": [start, next_row]}]}
    book["datalists"] = {"people": people, "tried": people | {"validation": "*_04_*", "test": "*_03_*"}}
    (tree / "common/lab/queue/rows.json").write_text(json.dumps(book))
    for words in ("init -q", "add -A", "-c user.name=n -c user.email=e commit -qm m"):
        subprocess.run(["git", *words.split()], cwd=tree, check=True)
    results = tree / "common/lab/queue/results.csv"
    command = [sys.executable, "-m", "common.lab.queue", "--volumes", volumes, "--folder"]

    def read_figures():
        return [{key: value for key, value in each.items() if key != "seconds"} for each in queue.read_lines(results)]

    def run(*words):
        return subprocess.run([*command, *words], cwd=tree, capture_output=True, text=True)

    done = run(tmp_path / "a", "--seconds=0")
    assert done.returncode == 0 and "start, seed 0: takes 1 minutes" in done.stdout
    (volumes / "person_04_t1w.nii.gz").rename(tmp_path / "left.nii.gz")
    done = run(tmp_path / "a")
    missing = "4 instead of 5 volumes *.nii.gz in --volumes"
    assert done.returncode == 1 and missing in done.stdout and not results.exists()
    (tmp_path / "left.nii.gz").rename(volumes / "person_04_t1w.nii.gz")
    assert run(tmp_path / "a").returncode == 0
    expected = read_figures()
    places = [(each["table"], each["row"], each["set"]) for each in expected]
    tried = [("T", "SRCNN", "tried")] * 2
    assert places == [("T", "start", "same"), *tried, ("T", "SRCNN", "same"), ("U", "SRCNN", "same")]
    assert expected[1]["choice"] == expected[3]["choice"] == "learning_rate=0.001" and expected[2]["psnr"] == "-inf"
    assert expected[3]["iterations"] == "1000" and float(expected[3]["psnr"]) > float(expected[0]["psnr"]) > 20
    assert expected[3]["psnr"] != expected[4]["psnr"]
    results.unlink()
    with subprocess.Popen([*command, tmp_path / "b"], cwd=tree) as begun:
        while not list(tmp_path.glob("b/rows/*SRCNN_seed_0/0/SRCNN/models/training_state.pt")):
            with pytest.raises(subprocess.TimeoutExpired):
                begun.wait(0.2)
        begun.kill()
    assert len(read_figures()) == 3
    shutil.rmtree(next(tmp_path.glob("b/rows/*start_seed_0")))  # as on another machine
    (tree / "common" / "graph.py").write_text("the work tree does not matter")
    assert run(tmp_path / "b").returncode == 0
    assert read_figures() == expected
