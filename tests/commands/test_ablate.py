"""``python -m common ablate``: which commands it runs, what it makes of their tables, and what it refuses."""

import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from common import __main__
from common.commands.ablate import ablate
from common.commands.merge import merge
from common.errors import RunsFailedError
from common.reports import write_table
from common.reports.planes import load_panels
from common.side_by_side import Programs
from common.tables import execution
from common.tables.execution import Pace
from common.tables.merged import write_rows
from common.tables.runs import Run
from tests.bundles import runs

ROOT = Path(__file__).parents[2]

# A bundle whose network gains "gain" dB over cubic interpolation, and whose weights are the settings of the training.
TRAIN = {
    "imports": [
        "$from pathlib import Path",
        "$from common.command_line import check",
        "$from common.reports import write_table",
    ],
    "dataset_dir": "data",
    "output_dir": "out",
    "ckpt_dir": "models",
    "resume": False,
    "gain": 1.0,
    "fold": 0,
    "seed": 0,
    "base": 30.0,
    "noise": 0.0,
    "divisor": 1,
    "luck": "$(0.3 + @fold) * @seed**2",
    "loss": {"weight": 1, "inputs": ["sr"]},
    "note": "none",
    "settings": "$[@dataset_dir, @resume, @loss, @note]",
    "initialize": ["$check()"],
    "run": [
        "$1 / @gain",
        "$Path(@ckpt_dir).mkdir(parents=True, exist_ok=True)",
        "$(Path(@ckpt_dir) / 'model.txt').write_text(repr(@settings))",
    ],
}
EVALUATE = {
    "methods": "$zip(['cubic', 'fake'], [@base + @noise, @base + @noise + @gain + @luck])",
    "shift": {"displacement_x": 0.0, "displacement_y": 0.0, "displacement_z": 0.0},
    "rows": "$[dict(case='sub-' + str(@fold), method=m, psnr=p, ssim=0.9, **@shift) for m, p in @methods]",
    "run": ["$(Path(@ckpt_dir) / 'model.txt').read_text()", "$write_table(@output_dir, @rows)", "$1 / @divisor"],
}


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The folder of a bundle, and the repository's root as working directory."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(ROOT)
    configs = {"train": TRAIN, "evaluate": EVALUATE, "better": {"gain": 2.0}}
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    for name, content in configs.items():
        (tmp_path / "bundle" / "configs" / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "bundle"


def tables(bundle, **rows):
    (bundle / "configs" / "tables.json").write_text(json.dumps(rows))


def table(folder):
    """PSNR by method and case."""
    with (folder / "table.csv").open() as file:
        return {(row["method"], row["case"]): float(row["psnr"]) for row in csv.DictReader(file)}


def test_a_table_in_which_a_row_fails_and_is_then_resumed(bundle, commands, tmp_path, capsys):
    odd = {"loss#weight": -1.5, "loss#inputs": ["sr", "hr"], "note": None}
    plain = {"name": "as it is", "override": odd}
    folds = {"name": "2 folds, better", "overlays": ["better"], "pool": [{"fold": 0}, {"fold": 1}]}
    other = {"name": "other scale", "override": {"base": 20.0, "gain": 3}}
    tables(bundle, main=[plain, {"name": "broken", "override": {"gain": 0}}, folds, other], another=[plain])
    out, data = tmp_path / "out", tmp_path / "some data"
    with pytest.raises(FileNotFoundError, match=r"dataset_dir .*some data is not a folder"):
        ablate("main", str(data), str(out), str(bundle))
    assert not out.exists()
    data.mkdir()
    with pytest.raises(RunsFailedError, match=r"1 of 5 runs failed.*\n  broken: .* 1: .*division by zero .*\n"):
        ablate("main", str(data), str(out), str(bundle))
    expected = {
        ("cubic", "sub-0"): 30,
        ("as it is", "sub-0"): 31,
        # The folds have a case more, so that their baseline is another, as is that of another scale.
        ("cubic (2 folds, better)", "sub-0"): 30,
        ("cubic (2 folds, better)", "sub-1"): 30,
        ("2 folds, better", "sub-0"): 32,
        ("2 folds, better", "sub-1"): 32,
        ("cubic (other scale)", "sub-0"): 20,
        ("other scale", "sub-0"): 23,
    }
    assert table(out) == expected and list(table(out)) == list(expected)
    assert (out / "boxplots.png").is_file() and (out / "table.json").is_file()
    said = capsys.readouterr().out
    assert "run 4 of 5: 2 folds, better, 2 of 2, in" in said and "32.00 +- 0.00" in said
    assert {path.name for path in (out / "2_folds_better" / "2").iterdir()} >= {"models", "table.json", "log.txt"}
    settings = (out / "as_it_is" / "models" / "model.txt").read_text()
    assert settings == f"['{data}', False, {{'weight': -1.5, 'inputs': ['sr', 'hr']}}, None]"
    assert len(commands) == 9

    # The broken row is mended, and only that is run, and trained with --resume.
    commands.clear()
    tables(bundle, main=[plain, {"name": "broken", "override": {"gain": 0.5}}, folds, other])
    ablate("main", str(data), str(out), str(bundle), resume="true")
    assert len(commands) == 2 and "--resume=true" in commands[0] and "--resume=true" not in commands[1]
    assert table(out) == {**expected, ("broken", "sub-0"): 30.5}

    # Begun anew and stopped at once: a later --resume must not take these tables for new ones.
    def stopped(programs, command, log):
        os.kill(os.getpid(), signal.SIGTERM)
        return -signal.SIGTERM

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            ablate("main", str(data), str(out), str(bundle), overwrite=True)
    assert not list(out.glob("*/**/table.json"))
    assert capsys.readouterr().out.endswith("the same command with --resume true goes on with what is left\n")


def test_a_row_that_evaluates_the_weights_of_another(bundle, commands, tmp_path):
    tables(
        bundle,
        main=[
            {"name": "a", "pool": [{"fold": 0}, {"fold": 1}], "override": {"note": "trained"}},
            {"name": "b", "pool": [{"fold": 0}, {"fold": 1}], "overlays": ["better"], "weights": "a"},
        ],
    )
    out = tmp_path / "out"
    ablate("main", "common/data", str(out), str(bundle))
    assert table(out) == {(m, f"sub-{i}"): p for m, p in (("cubic", 30), ("a", 31), ("b", 32)) for i in (0, 1)}
    assert len(commands) == 6  # a is trained and evaluated twice, b is evaluated twice
    folders = [word for command in commands[4:] for word in command if word.startswith("--ckpt_dir=")]
    assert folders == [f"--ckpt_dir={out / 'a' / str(n) / 'models'}" for n in (1, 2)]
    assert "trained" in (out / "a" / "2" / "models" / "model.txt").read_text()
    # Done before, but for one table.
    commands.clear()
    (out / "b" / "2" / "table.json").unlink()
    ablate("main", "common/data", str(out), str(bundle), resume=True)
    assert len(commands) == 1 and "--output_dir=" + str(out / "b" / "2") in commands[0]


def test_what_another_table_has_trained(bundle, commands, tmp_path):
    """It is evaluated, nothing is trained; a folder that holds none of it is refused before anything runs."""
    tables(bundle, main=[{"name": "a"}, {"name": "b", "override": {"gain": 2}}])
    first, again = str(tmp_path / "first"), str(tmp_path / "again")
    with pytest.raises(FileNotFoundError, match=r"--trained .*first: none of the rows .*a has no table\.json"):
        ablate("main", "common/data", again, str(bundle), trained=first)
    assert not commands and not Path(again).exists()
    ablate("main", "common/data", first, str(bundle))
    with pytest.raises(ValueError, match="--trained is --output_dir"):
        ablate("main", "common/data", first, str(bundle), trained=first)
    commands.clear()
    ablate("main", "common/data", again, str(bundle), trained=first, note="another scanner")
    folders = [word for command in commands for word in command if word.startswith("--ckpt_dir=")]
    assert folders == [f"--ckpt_dir={first}/{name}/models" for name in "ab"]
    assert table(Path(again)) == table(Path(first))


def test_seeds(bundle, commands, tmp_path, capsys):
    """Their spread is that of what is trained; folds are pooled within a seed; weights are those of the same seed."""
    folds = {"pool": [{"fold": 0}, {"fold": 1}]}
    unlucky = {"luck": 0.0, "noise": "$0.5 * @seed"}  # its scans change with the seed, what it gains does not
    rows = [
        {"name": "a", **folds, "override": {"note": "$1 // (4 - @seed)"}},
        {"name": "b", **folds, "overlays": ["better"], "weights": "a"},
        {"name": "c", **folds, "override": unlucky},
    ]
    tables(bundle, main=rows)
    out = tmp_path / "out"
    ablate("main", "common/data", str(out), str(bundle), seeds=3)
    said = capsys.readouterr().out
    assert "run 8 of 18: a, seed 1, 2 of 2, in" in said and ": a, seed 1, 2 of 2: done in " in said
    assert "mean over the cases; +- is the standard deviation over 3 seeds\n" in said
    # Of each run by itself: those that take weights took them from their own seed and fold.
    runs_of = {
        name: [[out / name / f"seed_{seed}" / part for part in "12"] for seed in range(3)] for name in ("a", "b", "c")
    }
    # Of each seed a trains and is evaluated, twice, then b is evaluated, then c.
    evaluated = [command for seed in range(3) for command in commands[10 * seed + 4 : 10 * seed + 6]]
    taken = [word for command in evaluated for word in command if word.startswith("--ckpt_dir=")]
    assert taken == [f"--ckpt_dir={folder / 'models'}" for seed in runs_of["a"] for folder in seed]
    summary = json.loads((out / "table.json").read_text())["summary"]
    for name, seeds in runs_of.items():
        means = [np.mean([table(folder)[("fake", f"sub-{i}")] for i, folder in enumerate(seed)]) for seed in seeds]
        mean, sd = np.mean(means), np.std(means, ddof=1)
        assert sd > 0.4
        assert summary[name]["psnr"] == {"mean": pytest.approx(mean), "sd": pytest.approx(sd), "n": 3}
        assert next(line for line in said.splitlines() if line.split()[:2] == [name, "2"]).split()[2:5] == [
            f"{mean:.2f}",
            "+-",
            f"{sd:.2f}",
        ]
    # One cubic for all seeds where it is the same, and else each.
    assert summary["cubic"]["psnr"] == {"mean": 30, "sd": None, "n": 1}
    assert summary["cubic (c)"]["psnr"] == {"mean": 30.5, "sd": 0.5, "n": 3}
    assert "The LR inputs of c change with the seed" in said and "\n  a; b\n  c\n" in said
    with (out / "table.csv").open() as file:
        kept = [(r["method"], r["seed"], r["case"], float(r["psnr"])) for r in csv.DictReader(file)]
    assert len(kept) == 2 + 3 * 6 + 6 and ("a", "2", "sub-1", 30 + 1 + 1.3 * 4) in kept
    assert kept[0] == ("cubic", "", "sub-0", 30)

    # Two seeds more: the others are done. One of the new ones fails, and with it its row and that of its weights.
    commands.clear()
    with pytest.raises(RunsFailedError, match=r"4 of 30 runs failed") as failed:
        ablate("main", "common/data", str(out), str(bundle), seeds=5, resume=True)
    assert "\n  b, seed 4, 2 of 2: a, seed 4, 2 of 2, whose weights it takes, failed.\n" in str(failed.value)
    assert not (out / "b" / "seed_4").exists() and len(commands) == 2 * 2 + 2 + 2 + 4 * 2
    assert {method for method, _ in table(out)} == {"cubic", "c"}


def test_runs_side_by_side(bundle, tmp_path, monkeypatch, capsys):
    """Two at a time, in the table's order, but for those that wait for weights; each line says which run it is of."""
    weights = {"b": "a", "d": "c"}
    tables(bundle, main=[{"name": n, **({"weights": weights[n]} if n in weights else {})} for n in "abcdef"])
    out, two, begun = tmp_path / "out", threading.Barrier(2, timeout=60), []

    def run(programs, command, log):
        name = Path(next(word for word in command if word.startswith("--output_dir="))).name
        begun.append(name + ("'" if "evaluate.json" in command[4] else ""))
        two.wait()
        shift = {f"displacement_{axis}": 0.0 for axis in "xyz"}
        write_table(out / name, [{"case": "x", "method": m, "psnr": 1, "ssim": 1, **shift} for m in ("cubic", "own")])
        (out / name / "models").mkdir(exist_ok=True)
        (out / name / "models" / "model.pt").touch()
        return 0

    monkeypatch.setattr(Programs, "run", run)
    ablate("main", "common/data", str(out), str(bundle), jobs=2)
    assert [set(begun[i : i + 2]) for i in range(0, len(begun), 2)] == [
        {"a", "c"}, {"a'", "c'"}, {"b'", "d'"}, {"e", "f"}, {"e'", "f'"},
    ]  # fmt: skip
    assert list(table(out)) == [(method, "x") for method in ("cubic", *"abcdef")]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert len(said) == 12 and all(re.match(r"run \d of 6: [a-f](, in |: done in \d+ s)", line) for line in said)
    ends = [line for line in said if "done" in line]
    assert all(re.search(r" \(about \d+ s left\)$", line) for line in ends[:-1]) and "left" not in ends[-1]


def test_seconds_of_trainings_that_left_something(bundle, tmp_path, monkeypatch):
    """One that fails at once is begun anew, one that was done starts again; neither is what the training took."""
    tables(bundle, main=[{"name": "a"}])
    folder = tmp_path / "out" / "a"
    for leaves, trains, lines in (False, True, 0), (True, True, 1), (False, True, 2), (False, False, 2):

        def run(programs, command, log, leaves=leaves, trains=trains):
            (folder / "models").mkdir(exist_ok=True)
            if leaves:
                (folder / "models" / "training_state.pt").touch()
            if trains:
                with (folder / "history.jsonl").open("a") as history:
                    history.write("{}\n")
            return 1

        monkeypatch.setattr(Programs, "run", run)
        with pytest.raises(RunsFailedError):
            ablate("main", "common/data", str(tmp_path / "out"), str(bundle), resume=True)
        seconds = folder / execution.TRAINING_SECONDS
        assert (len(seconds.read_text().splitlines()) if seconds.exists() else 0) == lines


def test_how_long_is_left(monkeypatch, tmp_path):
    """Of two at a time, from those that are done, less what has been done of those that run."""
    a, b, c, d, e, f, g = (
        Run(name, None, name, tmp_path / name, [], {}, tmp_path / weights)
        for name, weights in zip("abcdefg", "abcdaag", strict=True)
    )
    (a.folder / "models").mkdir(parents=True)
    (a.folder / "models" / "model.pt").touch()
    clock = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(execution, "time", clock)
    pace = Pace(2)
    for clock.now, run in ((0, a), (0, b), (100, g), (150, c)):
        pace.begins(run)
    assert pace.left([d, e], [b, c]) is None
    clock.now = 160
    pace.ends(g, well=True)
    assert pace.left([d, e], [b, c]) is None  # g has trained nothing: it says nothing of rows that do
    clock.now = 200
    assert pace.ends(a, well=True) == 200 and pace.ends(b, well=False) == 200
    assert pace.left([d, e], [c]) == "5 min"  # 150, 200 and 200 s: an evaluation is taken for a training
    clock.now = 210
    pace.begins(e)
    clock.now = 220
    pace.ends(e, well=True)
    assert pace.left([d, f], [c]) == "3 min"  # 130, 200 and 10 s
    another = Run("g", 1, "g, seed 1", tmp_path / "g" / "seed_1", [], {}, tmp_path / "g" / "seed_1")
    assert pace.left([another], []) == "60 s"  # not 200 s, as long as g's other seed
    assert pace.left([f], []) == "10 s" and pace.left([], []) is None
    pace.trainings.clear()  # resumed where only evaluations were left, and this training
    assert pace.left([d], []) is None


@pytest.mark.slow
def test_seeds_side_by_side_of_a_real_bundle(tmp_path):
    """Bit for bit what they are one after another; seeds change what is learnt and not what is tested."""
    tiny, data = runs.TINY["srcnn"], tmp_path / "data"
    entries = [tiny.save_hr(data, subject, runs.phantom(subject)) for subject in range(6)]
    runs.datalist(data, **{group: [entries[i] for i in subjects] for group, subjects in tiny.groups.items()})
    small = {"device": "$torch.device('cpu')", **tiny.network, **tiny.training}
    rows = [{"name": "SRCNN", "override": small}, {"name": "again", "override": small, "weights": "SRCNN"}]
    (tmp_path / "rows.json").write_text(json.dumps({"any": rows}))
    found = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        words = f"--bundle bundles/srcnn --table {tmp_path}/rows.json --dataset_dir {data} --output_dir {out} --seeds 2"
        done = subprocess.run(
            [sys.executable, "-m", "common", "ablate", *words.split(), "--jobs", str(jobs)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        losses = [(out / "SRCNN" / f"seed_{seed}" / "history.jsonl").read_text().splitlines() for seed in (0, 1)]
        found.append((done.stdout.partition("method")[2].partition("pictures")[0], (out / "table.csv").read_text()))
    assert found[0] == found[1]
    one, other = (json.loads(lines[0]) for lines in losses)
    assert {key for key in one if one[key] == other[key]} <= {"iteration", "epoch", "seconds"}
    with (tmp_path / "1" / "table.csv").open() as file:
        psnr = {(row["method"], row["seed"]): row["psnr"] for row in csv.DictReader(file)}
    assert list(psnr) == [("cubic", ""), ("SRCNN", "0"), ("SRCNN", "1"), ("again", "0"), ("again", "1")]
    assert psnr["SRCNN", "0"] == psnr["again", "0"] != psnr["SRCNN", "1"] == psnr["again", "1"]


def test_seeds_are_set_in_one_way_only(bundle, commands, tmp_path):
    out = str(tmp_path / "out")
    tables(bundle, main=[{"name": "a", "pool": [{"seed": 1}]}], other=[{"name": "a"}])
    with pytest.raises(ValueError, match=r"row 'a' sets seed, which --seeds 2 sets to 0 to 1 in turn; take seed out"):
        ablate("main", "common/data", out, str(bundle), seeds=2)
    with pytest.raises(ValueError, match=r"the command line sets seed, which --seeds 2"):
        ablate("other", "common/data", out, str(bundle), seeds=2, seed=3)
    for name in ("seeds", "jobs", "folds"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected a whole number of at least 1"):
            ablate("other", "common/data", out, str(bundle), **{name: 0})
    assert not commands and not (tmp_path / "out").exists()
    ablate("main", "common/data", out, str(bundle))
    assert table(tmp_path / "out")[("a", "sub-0")] == 31.3


def test_rows_of_several_bundles(bundle, commands, tmp_path, capsys):
    """Overlays, configs and checks are those of the row's bundle, and so are interpolation and its name."""
    other = tmp_path / "other"
    (other / "configs").mkdir(parents=True)
    configs = {"train": {**TRAIN, "base": 20.0, "sharp": 1, "blur": 1}, "evaluate": EVALUATE, "worse": {"gain": 0.5}}
    for name, content in configs.items():
        (other / "configs" / f"{name}.json").write_text(json.dumps(content))
    rows = [
        {"name": "a", "overlays": ["better"]},
        {"name": "b", "bundle": str(other), "overlays": ["worse"], "override": {"sharp": 2}},
        {"name": "c", "bundle": str(other), "weights": "b", "override": {"gain": 3}},
        {"name": "d", "bundle": str(bundle)},
    ]
    path, out = tmp_path / "mine.json", tmp_path / "out"
    path.write_text(json.dumps({"any": rows}))
    ablate(str(path), "common/data", str(out), str(bundle))
    expected = {"cubic": 30, "a": 32, "d": 31, "cubic (b)": 20, "b": 20.5, "c": 23}
    assert table(out) == {(method, "sub-0"): psnr for method, psnr in expected.items()}
    assert [method for method, _ in table(out)] == list(expected)
    assert "not compared on equal terms" in capsys.readouterr().out
    # What all rows set makes their inputs equal.
    path.write_text(json.dumps({"any": [{"bundle": str(bundle), **row} for row in rows]}))
    ablate(str(path), "common/data", str(out), base=25, overwrite=True)
    assert {method for method, _ in table(out)} == {"cubic", "a", "b", "c", "d"}
    assert "equal terms" not in capsys.readouterr().out
    # What only some have is set for these, and said; what none has is refused.
    commands.clear()
    ablate(str(path), "common/data", str(out), blur=3, overwrite=True)
    assert [any("--blur" in word for word in line) for line in commands] == [False] * 2 + [True] * 3 + [False] * 2
    assert "--blur: not for a; d, which have no such key" in capsys.readouterr().out
    ablate(str(path), "common/data", str(out), blur=3, against="b", resume=True)
    assert json.loads((out / "table.json").read_text())["paired_t_test"]["against"] == "b"
    for options, said in (
        ({"against": "e"}, r"--against e: there is no such row, only cubic; a; b; c; d"),
        ({"blurr": 3}, r"a: --blurr: the configs have no such key"),
        ({"size": "tiny"}, r"--size tiny \('a'\): the overlay .*tiny\.json is not there"),
        ({"folds": 2}, r"--folds 2, row 'a': .*bundle/configs has no cross_validation\.json"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            ablate(str(path), "common/data", str(out), **options)
    commands.clear()
    for wrong, said in (
        ([{"name": "a"}], r"row 1 \('a'\): no 'bundle', and no --bundle"),
        ([{"name": "a", "bundle": "none"}], r"row 1 \('a'\): 'bundle': there is no none/configs/train\.json"),
        ([{**rows[1], "overlays": ["better"]}], r"the overlay .*other/configs/better\.json is not there"),
        ([rows[3], {**rows[1], "weights": "d"}], r"its bundle differs from that of 'd', whose weights"),
    ):
        path.write_text(json.dumps({"any": wrong}))
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            ablate(str(path), "common/data", str(out))
    with pytest.raises(ValueError, match=r"--table main: without --bundle"):
        ablate("main", "common/data", str(out))
    assert not commands


def test_rows_one_by_one(bundle, commands, tmp_path, capsys):
    """In any order, as the jobs of an array are: the table is that of one command, and says what is missing."""
    tables(
        bundle,
        main=[
            {"name": "a", "overlays": ["better"]},
            {"name": "b", "pool": [{"fold": 0}, {"fold": 1}]},
            {"name": "c", "weights": "a", "override": {"base": 31}},
        ],
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"bundle": str(bundle), "seeds": 2}

    def run(row, **more):
        ablate("main", "common/data", str(parts), row=row, **{**options, **more})

    with pytest.raises(FileNotFoundError, match=r"rows\.json: there is no such file"):
        merge(str(parts))
    with pytest.raises(FileNotFoundError, match=r"--row 3: .*a/seed_0 has no table\.json; run the row whose weights"):
        run(3)
    run(2)
    with pytest.raises(ValueError, match=r"a/seed_0.* now it is --gain=3.* goes on without --row\.$"):
        run(1, gain=3)
    run(1)
    assert not (parts / "table.json").exists() and len(commands) == 2 * (4 + 2)
    capsys.readouterr()
    with pytest.raises(RunsFailedError, match=r"(?s)^not done.*c/seed_0.*c/seed_1"):
        merge(str(parts), against="c")
    assert "no paired t-test: the row c is not done" in capsys.readouterr().out
    assert {method for method, _ in table(parts)} & {"a", "b", "c"} == {"a", "b"}
    run(3)
    merge(str(parts), against="a")
    ablate("main", "common/data", str(whole), against="a", **options)
    for name in ("table.csv", "table.json"):
        assert (parts / name).read_text() == (whole / name).read_text()
    # Nothing of another command stands beside what is there, and nothing is made anew that was not to be.
    before = (parts / "rows.json").read_text()
    for wrong, error, said in (
        ({"row": 4}, ValueError, r"--row 4: the table has the rows 1 a, 2 b, 3 c"),
        ({"row": 1.5}, ValueError, r"row is 1\.5, expected a whole number"),
        ({"row": 1, "against": "b"}, ValueError, r"give it to merge"),
        ({"row": 1, "gain": 3, "overwrite": True}, ValueError, r"run with less, now it is --gain=3.*made anew\.$"),
        ({"row": 1, "seeds": 1, "resume": True}, ValueError, r"this was run with|\(no such run\)"),
        ({"row": None, "gain": 3, "resume": True}, ValueError, r"this was run with less, now it is --gain=3"),
        ({"row": 3}, FileExistsError, r"c/seed_0 holds the table of an earlier run; --resume true keeps it"),
        ({"row": 1}, FileExistsError, "overwrite"),
    ):
        with pytest.raises(error, match=said):
            run(**wrong)
        assert (parts / "rows.json").read_text() == before and (parts / "c" / "seed_1" / "table.json").is_file()
    with pytest.raises(ValueError, match=r"--against d: there is no such row, only cubic; a; b; c"):
        merge(str(parts), against="d")
    # What another row was made of is not kept when that is made anew.
    pictures = [parts / name for name in ("sub-0.png", "sub-0_profile.png")]
    for path in pictures:
        path.touch()
    run(1, overwrite=True)
    for path in (*pictures, parts / "table.json", parts / "table.csv", parts / "boxplots.png"):
        assert not path.exists(), "what was merged before is of other runs"
    assert (parts / "b" / "seed_0" / "1" / "table.json").is_file()
    assert not list((parts / "c").rglob("table.json"))


def test_rows_are_listed_by_several_commands_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_rows(tmp_path, {"a": [{"seed": None}] * 99}), range(200)))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_a_row_whose_evaluation_fails_after_its_table_is_written(bundle, commands, tmp_path):
    """As it does where one case cannot be read: the row is left out, and is not taken for done."""
    tables(bundle, main=[{"name": "a"}, {"name": "bad", "overlays": ["bad"]}])
    (bundle / "configs" / "bad.json").write_text(json.dumps({"divisor": 0}))
    for resume in (False, True):
        with pytest.raises(RunsFailedError, match=r"bad: evaluation, exit status 1.*division by zero"):
            ablate("main", "common/data", str(tmp_path / "out"), str(bundle), resume=resume)
        assert {method for method, _ in table(tmp_path / "out")} == {"cubic", "a"}


@pytest.mark.slow
def test_two_methods_on_one_datalist(commands, tmp_path, monkeypatch):
    """Real bundles, tiny: UDEAN and EDSR on the same LR and on LR of their own; one picture a case."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(ROOT)
    tiny = runs.TINY["udean"]
    data = tmp_path / "data"
    entries = [tiny.save_hr(data, subject, runs.phantom(subject, (41, 44, 37)), axes="LSA") for subject in range(6)]
    groups = {group: [entries[i] for i in subjects] for group, subjects in tiny.groups.items()}
    runs.datalist(data, "unpaired", **groups)
    same = {"degradation": {"_target_": "common.degradations.KSpaceTruncation", "factors": [2, 2, 1]}}

    def row(name, bundle, **keys):
        small = runs.overrides(bundle, ["train"], tmp_path, epoch_length=1, max_epochs=1, slice_axis="SI")
        known = json.loads((ROOT / "bundles" / bundle / "configs" / "train.json").read_text())
        override = {k: v for k, v in small.items() if k in known and k not in ("output_dir", "ckpt_dir")}
        return {"name": name, "bundle": f"bundles/{bundle}", **keys, "override": {**override, **keys["override"]}}

    gaussian = {"overlays": ["train_gaussian"]}
    rows = [
        row("UDEAN", "udean", override={"scale": [2, 2, 1]}),
        row("its own", "downsampling_gan", **gaussian, override={}),
        row("EDSR", "downsampling_gan", **gaussian, override=same),
        row("2x2x2", "udean", override={}),
    ]
    (tmp_path / "table.json").write_text(json.dumps({"any": rows}))
    ablate(str(tmp_path / "table.json"), str(data), str(tmp_path / "out"))
    assert [method for method, _ in table(tmp_path / "out")] == [
        "cubic", "UDEAN", "EDSR", "cubic (its own)", "its own", "cubic (2x2x2)", "2x2x2",
    ]  # fmt: skip
    assert (tmp_path / "out" / "boxplots.png").is_file() and imread(tmp_path / "out" / "sub-5_t1w.png").std() > 0.05
    # Of planes that are the same, HR is the same, but for what 2x2x2 cuts off.
    panels = {
        r["name"]: load_panels(next((tmp_path / "out" / r["name"].replace(" ", "_")).glob("*.npz"))) for r in rows
    }
    for name in ("its own", "EDSR", "2x2x2"):
        for one, other in zip(panels["UDEAN"]["HR"].planes, panels[name]["HR"].planes, strict=True):
            assert one.shape == other.shape or name == "2x2x2"
            np.testing.assert_array_equal(one[-other.shape[0] :, : other.shape[1]], other)


def test_what_the_command_line_sets_goes_to_all_rows(bundle, commands, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"any": [{"name": "a", "overlays": ["better"]}, {"name": "b", "override": {"fold": 0}}]})
    )
    ablate(str(path), "common/data", str(tmp_path / "out"), str(bundle), gain=4, note="-x=1")
    assert table(tmp_path / "out") == {("cubic", "sub-0"): 30, ("a", "sub-0"): 34, ("b", "sub-0"): 34}
    assert "'-x=1'" in (tmp_path / "out" / "a" / "models" / "model.txt").read_text()


def test_a_failure_is_one_message_and_exit_status_1(bundle, tmp_path, monkeypatch):
    """With processes of their own."""
    tables(bundle, main=[{"name": "broken", "override": {"gain": 0}}])
    line = (
        f"common ablate --bundle {bundle} --table main --dataset_dir common/data --output_dir {tmp_path}/out --fold 3"
    )
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert str(stop.value).startswith("error: 1 of 1 runs failed")
    assert "broken: training, exit status 1: " in str(stop.value) and "division by zero" in str(stop.value)
    log = tmp_path / "out" / "broken" / "log.txt"
    said = log.read_text()
    assert "Traceback" in said
    assert not (tmp_path / "out" / "table.json").exists()
    # What goes on keeps what was said before, and a run that is killed has not failed by that.
    monkeypatch.setattr(sys, "argv", [*line.split(), "--resume", "true"])
    monkeypatch.setattr(Programs, "run", lambda *_: -9)
    with pytest.raises(SystemExit, match="broken: training, exit status -9: no output"):
        __main__.main()
    assert log.read_text() == said


def test_what_outlives_its_ablate_is_not_started_twice(bundle, tmp_path):
    """A run has the lock of its log, with its output, for as long as it lives."""
    tables(bundle, main=[{"name": "a"}, {"name": "b"}])
    (tmp_path / "out" / "a").mkdir(parents=True)
    with (tmp_path / "out" / "a" / "log.txt").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    options = {"bundle": str(bundle), "resume": True}
    with pytest.raises(RunsFailedError, match=r"1 of 2 .*\n  a: .*log\.txt: a run .* still writes"):
        ablate("main", "common/data", str(tmp_path / "out"), **options)
    assert {method for method, _ in table(tmp_path / "out")} == {"cubic", "b"}
    orphan.communicate(b"\n")
    ablate("main", "common/data", str(tmp_path / "out"), **options)
    assert {method for method, _ in table(tmp_path / "out")} == {"cubic", "a", "b"}


def test_seconds_of_a_training_whose_ablate_was_killed(bundle, commands, tmp_path):
    """Until its last output, as the file of when it began is still there."""
    tables(bundle, main=[{"name": "a"}])
    folder = tmp_path / "out" / "a"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "model.pt").touch()
    (folder / "history.jsonl").write_text("{}\n")
    (folder / "log.txt").touch()
    (folder / "training_begun.txt").write_text("1000000.0 0\n")
    os.utime(folder / "log.txt", (1000037.5, 1000037.5))
    ablate("main", "common/data", str(tmp_path / "out"), str(bundle), resume=True)
    assert (folder / "training_seconds.txt").read_text().splitlines()[0] == "37.5"
    assert not (folder / "training_begun.txt").exists()


def test_a_table_is_of_one_datalist(bundle, commands, tmp_path):
    tables(bundle, main=[{"name": "a"}, {"name": "b", "override": {"gain": 0}}])
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "dataset.json").write_text("{}")
    with pytest.raises(RunsFailedError):
        ablate("main", str(data), str(out), str(bundle))
    # A folder may be named in other ways, but must hold what it held.
    with pytest.raises(RunsFailedError, match="1 of 2"):
        ablate("main", f"{data}/", str(out), str(bundle), resume=True)
    (data / "dataset.json").write_text('{"test": []}')
    with pytest.raises(ValueError, match=r"out/a: rows\.json .* run with dataset\.json of digest \w+, now"):
        ablate("main", str(data), str(out), str(bundle), resume=True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"name": "a", "overlay": "better"}], r"row 1: unknown key 'overlay'; a row has name, bundle, overlays"),
        ([{"name": "a", "overlays": "better"}], r"'overlays' is 'better', expected a JSON array"),
        ([{"name": "a", "overlays": ["best"]}], r"row 1 \('a'\): the overlay .*best\.json is not there"),
        ([{"name": "a b"}, {"name": "a  b"}], r"row 2: 'a  b' and 'a b' have the same folder 'a_b'"),
        ([{"override": {}}], r"the name is '', expected one"),
        ([{"name": "cubic"}], r"the name is 'cubic'"),
        ([{"name": "HR"}], r"the name is 'HR', expected .* not LR, guide, cubic, bicubic, HR"),
        (["a"], r"row 1: expected an object, found 'a'"),
        ([{"name": "a", "pool": [3]}], r"'pool' is \[3\]"),
        ([{"name": "a", "pool": []}], r"'pool' is \[\]"),
        ([{"name": "a", "weights": "b"}, {"name": "b"}], r"row 1 \('a'\): 'weights' is 'b', .* there is none"),
        (
            [{"name": "a"}, {"name": "b", "weights": "a"}, {"name": "c", "weights": "b"}],
            r"row 3 \('c'\): 'weights' is 'b', expected the name of an earlier row that is trained: a\.",
        ),
        ([{"name": "a", "pool": [{"fold": 1}]}, {"name": "b", "weights": "a"}], r"pool differs from that of 'a'"),
        ([], r"at least one row in each table"),
        ([{"name": "a"}, {"name": "b", "override": {"gian": 2}}], r"b: --gian: .*did you mean gain\?"),
        ([{"name": "a", "override": {"note": "x"}}], r"row 'a' sets note, but note is set for all rows"),
        ([{"name": "a", "pool": [{"loss": {}}]}], r"row 'a' sets loss, but loss#weight is set for all rows"),
        ([{"name": "a", "override": {"output_dir": "x"}}], r"row 'a' sets output_dir"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_before_any_runs(bundle, commands, tmp_path, rows, said):
    tables(bundle, main=rows)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        ablate("main", "common/data", str(tmp_path / "out"), str(bundle), note="y", **{"loss#weight": 2})
    assert not commands and not (tmp_path / "out").exists()


def test_rows_that_are_there_are_replaced_when_it_is_said(bundle, commands, tmp_path):
    tables(bundle, main=[{"name": "a"}, {"name": "b"}])
    history = tmp_path / "out" / "b" / "history_2.jsonl"
    history.parent.mkdir(parents=True)
    history.write_text("")
    with pytest.raises(FileExistsError, match=rf"{history.parent}: there is another run .*--overwrite true"):
        ablate("main", str(tmp_path), str(tmp_path / "out"), str(bundle))
    assert not commands and history.exists()
    ablate("main", str(tmp_path), str(tmp_path / "out"), str(bundle), overwrite="true")
    assert len(commands) == 4 and not history.exists()


def test_a_table_that_is_not_there(bundle, commands, tmp_path):
    out = str(tmp_path / "out")
    tables(bundle, main=[{"name": "a"}], other=[{"name": "b"}])
    with pytest.raises(ValueError, match=r"tables\.json: there is no table 'mian', only main, other\."):
        ablate("mian", "common/data", out, str(bundle))
    with pytest.raises(ValueError, match=r"holds one table, found main, other\."):
        ablate(str(bundle / "configs" / "tables.json"), "common/data", out, str(bundle))
    with pytest.raises(FileNotFoundError, match=r"none\.json: there is no such file; --table"):
        ablate("none.json", "common/data", out, str(bundle))
    with pytest.raises(
        FileNotFoundError, match=r"--bundle: there is no .*train\.json; expected the folder of a bundle"
    ):
        ablate("main", "common/data", out, str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"--ckpt_dir: ablate sets this"):
        ablate("main", "common/data", out, str(bundle), ckpt_dir="models")
    (bundle / "configs" / "tables.json").write_text("{main: []}")
    with pytest.raises(ValueError, match=r"tables\.json: not JSON"):
        ablate("main", "common/data", out, str(bundle))
    assert not commands


def test_misaligned_rows_on_other_data_are_refused_at_once(commands, tmp_path):
    """Before any of them runs, with what to do."""
    data = runs.datalist(tmp_path / "data", source=[{"hr": tmp_path / "a.nii.gz"}])
    with pytest.raises(ValueError, match=r"Supervised without .*dataset\.json is not of a misaligned.*I_unpaired"):
        ablate("I", str(data), str(tmp_path / "out"), str(runs.ROOT / "bundles" / "udean"))
    assert not commands and not (tmp_path / "out").exists()
