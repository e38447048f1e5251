"""``python -m common ablate``: which commands it runs, what it makes of their tables, and what it refuses."""

import csv
import json
import os
import select
import subprocess
import sys
from functools import partial
from unittest.mock import Mock

import pytest

from common import __main__
from common.lab.tables import execution
from common.program.commands.ablate import ablate
from common.runtime.errors import RunsFailedError
from tests.bundles import runs
from tests.bundles.runs import ROOT
from tests.refused import has, refused

SHIFT = {f"displacement_{axis}": 0.0 for axis in "xyz"}
FOLDS = [{"fold": 0}, {"fold": 1}]
A, B, C = ({"name": name} for name in "abc")

# A bundle whose network gains "gain" dB over cubic interpolation, and whose weights are the settings of the training.
WORDS = {"dataset_dir": "data", "output_dir": "out", "ckpt_dir": "models", "resume": False, "note": "none"}
NUMBERS = {"gain": 1.0, "fold": 0, "seed": 0, "base": 30.0, "noise": 0.0, "divisor": 1}
TRAIN = {
    "imports": [
        "$from pathlib import Path",
        "$from common.start import prepare_run",
        "$from common.reports import write_table",
    ],
    **WORDS,
    **NUMBERS,
    "checkpoint": None,
    "laid": None,
    "luck": "$(0.3 + @fold) * @seed**2",
    "loss": {"weight": 1, "inputs": ["sr"]},
    "settings": "$[@dataset_dir, @resume, @loss, @note]",
    "initialize": ["$prepare_run('cpu')"],
    "run": [
        "$1 / @gain",
        "$Path(@ckpt_dir).mkdir(parents=True, exist_ok=True)",
        "$(Path(@ckpt_dir) / 'model.txt').write_text(repr(@settings))",
        '$(Path(@ckpt_dir) / \'model.json\').write_text(\'{"digest": "", "trained": {}, "laid": "%s"}\' % @output_dir)',
    ],
}
EVALUATE = {
    "methods": "$zip(['cubic', 'fake'], [@base + @noise, @base + @noise + @gain + @luck])",
    "shift": SHIFT,
    "rows": "$[dict(case='sub-' + str(@fold), method=m, psnr=p, ssim=0.9, **@shift) for m, p in @methods]",
    "evaluate": {"note": "none"},
    "said": "$[@checkpoint, @laid, @evaluate#note]",
    "run": [
        "$open(@output_dir + '/said.txt', 'w').write(repr(@said))",
        "$write_table(@output_dir, @rows)",
        "$1 / @divisor",
    ],
}


def saved(folder, **configs):
    (folder / "configs").mkdir(parents=True)
    for name, content in configs.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(ROOT)
    return saved(tmp_path / "bundle", train=TRAIN, evaluate=EVALUATE, better={"gain": 2.0}, bad={"divisor": 0})


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(bundle, out):
    """Ablates a table of the bundle; rows that are given become its table main."""

    def run(rows=None, table="main", data="common/data", to=out, default=bundle, **options):
        if rows is not None:
            (bundle / "configs" / "tables.json").write_text(json.dumps({"main": rows, "other": [A]}))
        ablate(str(table), str(data), str(to), None if default is None else str(default), **options)

    return run


def table_file(path, rows):
    path.write_text(json.dumps({"any": rows}))
    return str(path)


def table(folder):
    """PSNR by method and case."""
    with (folder / "table.csv").open() as file:
        return {(row["method"], row["case"]): float(row["psnr"]) for row in csv.DictReader(file)}


def methods(folder):
    return list(dict.fromkeys(method for method, _ in table(folder)))


def folders_of_weights(commands):
    return [word.partition("=")[2] for line in commands for word in line if word.startswith("--ckpt_dir=")]


def test_a_table_in_which_rows_fail_and_which_is_then_resumed(run, out, commands, tmp_path, capsys, monkeypatch):
    """One row fails in training, one in its evaluation, after its table is written: neither is taken for done."""
    odd = {"loss#weight": -1.5, "loss#inputs": ["sr", "hr"], "note": None}
    plain, broken = {"name": "as it is", "override": odd}, {"name": "broken", "override": {"gain": 0}}
    folds = {"name": "2 folds, better", "overlays": ["better"], "pool": FOLDS}
    other = {"name": "other scale", "override": {"base": 20.0, "gain": 3}}
    bad, data = {"name": "bad", "overlays": ["bad"]}, tmp_path / "some data"
    begin = partial(run, [plain, broken, folds, other, bad], data=data)
    refused(begin, FileNotFoundError, "dataset_dir", "some data")
    assert not out.exists()
    data.mkdir()
    why = ["\n  broken: training, exit status 1: ", "\n  bad: evaluation, exit status 1: "]
    assert refused(begin, RunsFailedError, "2 of 6 runs failed", *why).count("division by zero") == 2
    # The folds have a case more, so that their baseline is another, as is that of another scale.
    psnr = {"cubic": [30], "as it is": [31], "cubic (2 folds, better)": [30, 30], "2 folds, better": [32, 32]}
    psnr |= {"cubic (other scale)": [20], "other scale": [23]}
    expected = {(method, f"sub-{i}"): value for method, values in psnr.items() for i, value in enumerate(values)}
    assert table(out) == expected and list(table(out)) == list(expected)
    assert (out / "boxplots.png").is_file() and (out / "table.json").is_file()
    has(capsys.readouterr().out, "run 4 of 6: 2 folds, better, 2 of 2", "32.00 +- 0.00")
    assert {path.name for path in (out / "2_folds_better" / "2").iterdir()} >= {"models", "table.json", "log.txt"}
    settings = (out / "as_it_is" / "models" / "model.txt").read_text()
    assert settings == f"['{data}', False, {{'weight': -1.5, 'inputs': ['sr', 'hr']}}, None]"
    assert len(commands) == 11
    # The broken row is mended: what failed is run, and trained with --resume.
    commands.clear()
    mended = [plain, {"name": "broken", "override": {"gain": 0.5}}, folds, other, bad]
    refused(lambda: run(mended, data=data, resume=True), RunsFailedError, "1 of 6", "bad: evaluation")
    assert ["--resume=True" in command for command in commands] == [True, False, True, False]
    assert table(out) == {**expected, ("broken", "sub-0"): 30.5}
    # Begun anew and stopped at once: a later --resume must not take these tables for new ones.
    monkeypatch.setattr(execution, "run_program", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(data=data, overwrite=True)
    assert not list(out.rglob("table.json"))


def test_a_size_lies_over_the_overlays_of_a_row(run, bundle, out):
    (bundle / "configs" / "tiny.json").write_text(json.dumps({"gain": 3.0}))
    run([A, {**B, "overlays": ["better"]}], size="tiny")
    assert table(out) == {("cubic", "sub-0"): 30, ("a", "sub-0"): 33, ("b", "sub-0"): 33}


def test_what_another_table_has_trained(run, commands, tmp_path):
    """It is evaluated, nothing is trained; a folder that holds none of it is refused before anything runs."""
    first, again = tmp_path / "first", tmp_path / "again"
    begin = partial(run, [A, {"name": "b", "override": {"gain": 2}}], trained=str(first))
    refused(partial(begin, to=again), FileNotFoundError, "--trained", str(first), "has a table.json")
    refused(partial(begin, to=first), ValueError, "--trained", "--output_dir")
    assert not commands and not again.exists()
    run(to=first)
    commands.clear()
    run(to=again, trained=str(first), note="another scanner")
    assert folders_of_weights(commands) == [f"{first}/{name}/models" for name in "ab"]
    assert table(again) == table(first)


def test_untrained_starts_and_what_was_known(run, out, commands):
    """A start has no checkpoint; what takes weights is that row but for what is its own, and is as trained as that."""
    rows = [
        {"name": "start", "weights": None, "override": {"gain": 0.5, "note": "x"}},
        {"name": "start, agreeing", "weights": "start", "override": {"gain": 1.5}},
        {**A, "start": "start", "knows": "the kernel", "overlays": ["better"], "override": {"gain": 0.54, "note": "x"}},
        {"name": "a, agreeing", "weights": "a", "override": {"gain": 1.56}},
        {"name": "a, again", "weights": "a, agreeing"},
    ]
    run(rows)
    assert len(commands) == 1 + 1 + 2 + 1 + 1
    assert [any("evaluate.json" in word for word in line) for line in commands[:4]] == [True, True, False, True]
    for name in ("start", "start_agreeing"):
        assert (out / name / "said.txt").read_text() == "[None, None, 'none']"
    assert {"--note=x", "--gain=1.56"} <= set(commands[4]) and "better.json" in commands[4][0]
    for stage, last in enumerate((4, 6), start=1):
        lines = [*({"iteration": i} for i in range(1, last + 1)), {"iteration": last, "validation/psnr": 30.0}]
        (out / "a" / f"history_{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "a" / "models" / "model.pt").touch()
    run(resume=True)
    labels = dict.fromkeys(("cubic", "start", "start, agreeing"), ("", "", ""))
    labels |= dict.fromkeys(("a", "a, agreeing", "a, again"), ("10", "not trained", "the kernel"))
    with (out / "table.csv").open() as file:
        found = {r["method"]: (r["iterations"], r["trained"], r["knew"]) for r in csv.DictReader(file)}
    assert found == labels
    last = json.loads((out / "table.json").read_text())["cases"][-1]
    assert last.items() >= {"iterations": 10, "trained": "not trained", "knew": "the kernel"}.items()
    # On other data, a start is evaluated as it is here.
    commands.clear()
    run(to=(again := out.with_name("again")), trained=str(out))
    assert len(commands) == 5 and (again / "table.csv").read_text() == (out / "table.csv").read_text()


def test_pools(run, out, commands):
    """Runs are pooled in a row; what takes weights takes them from its own fold, and fails without them."""
    other = {**B, "overlays": ["better"], "weights": "a"}
    broken = {**A, "pool": [FOLDS[0], {**FOLDS[1], "note": "$1 // 0"}]}
    taking = f"\n  b, 2 of 2: {out}/a/2, whose weights it takes, has no table.json"
    refused(lambda: run([broken, other, C]), RunsFailedError, "2 of 5 runs failed", taking)
    assert not (out / "b" / "2").exists() and methods(out) == ["cubic", "c"]
    commands.clear()
    run([{**A, "pool": FOLDS}, other, C], resume=True)
    assert folders_of_weights(commands) == [f"{out}/a/2/models"] * 3
    psnr = {"cubic": (30, 30), "a": (31, 31), "b": (32, 32), "cubic (c)": (30,), "c": (31,)}
    assert table(out) == {(name, f"sub-{i}"): value for name, values in psnr.items() for i, value in enumerate(values)}


def test_seconds_of_trainings_that_left_something(run, out, monkeypatch):
    """One that fails at once is begun anew, one that was done starts again; neither is what the training took."""
    folder = out / "a"
    for leaves, trains, lines in (False, True, 0), (True, True, 1), (False, True, 2), (False, False, 2):

        def failing(command, log, leaves=leaves, trains=trains):
            (folder / "models").mkdir(exist_ok=True)
            if leaves:
                (folder / "models" / "training_state.pt").touch()
            if trains:
                with (folder / "history.jsonl").open("a") as history:
                    history.write("{}\n")
            return 1

        monkeypatch.setattr(execution, "run_program", failing)
        refused(lambda: run([A], resume=True), RunsFailedError)
        seconds = folder / execution.TRAINING_SECONDS
        assert (len(seconds.read_text().splitlines()) if seconds.exists() else 0) == lines


def test_seconds_of_a_training_whose_ablate_was_killed(run, out, commands):
    """Until its last output, as the file of when it began is still there."""
    (out / "a" / "models").mkdir(parents=True)
    files = {"models/model.pt": "", "history.jsonl": '{"iteration": 1}\n', "log.txt": ""}
    files["training_begun.txt"] = "1000000.0 0\n"
    for name, text in files.items():
        (out / "a" / name).write_text(text)
    os.utime(out / "a" / "log.txt", (1000037.5, 1000037.5))
    run([A], resume=True)
    assert (out / "a" / "training_seconds.txt").read_text().splitlines()[0] == "37.5"
    assert not (out / "a" / "training_begun.txt").exists()


def test_rows_of_several_bundles(bundle, run, out, commands, tmp_path, capsys):
    """Overlays, configs and checks are those of the row's bundle, and so are interpolation and its name."""
    train = {**TRAIN, "base": 20.0, "sharp": 1, "blur": 1}
    other = str(saved(tmp_path / "other", train=train, evaluate=EVALUATE, worse={"gain": 0.5}))
    worse = {**B, "bundle": other, "overlays": ["worse"], "override": {"sharp": 2}}
    weighted = {**C, "bundle": other, "weights": "b", "override": {"gain": 3}}
    rows = [{**A, "overlays": ["better"]}, worse, weighted, {"name": "d", "bundle": str(bundle)}]
    path = tmp_path / "mine.json"
    run(table=table_file(path, rows))
    expected = {"cubic": 30, "a": 32, "d": 31, "cubic (b)": 20, "b": 20.5, "c": 23}
    assert table(out) == {(method, "sub-0"): psnr for method, psnr in expected.items()}
    assert methods(out) == list(expected)
    assert "not compared on equal terms" in capsys.readouterr().out
    # What all rows set makes their inputs equal.
    begin = partial(run, table=table_file(path, [{"bundle": str(bundle), **row} for row in rows]), default=None)
    begin(base=25, overwrite=True)
    assert methods(out) == ["cubic", *"abcd"]
    assert "equal terms" not in capsys.readouterr().out
    # What only some have is set for these, and said; what none has is refused.
    commands.clear()
    begin(blur=3, overwrite=True)
    assert [any("--blur" in word for word in line) for line in commands] == [False] * 2 + [True] * 3 + [False] * 2
    assert "--blur: not for a; d, which have no such key" in capsys.readouterr().out
    refused(lambda: begin(blurr=3), ValueError, "a: --blurr")
    commands.clear()
    for wrong, kind, words in (
        ({"any": [A]}, ValueError, ["row 1 ('a')", "'bundle'", "--bundle"]),
        ({"any": [{**worse, "overlays": ["better"]}]}, FileNotFoundError, [f"{other}/configs/better.json"]),
        ({"any": [rows[3], {**worse, "weights": "d"}]}, ValueError, ["('b')", "'bundle'", "'d'"]),
        ({"any": rows, "more": rows}, ValueError, ["mine.json", "any, more"]),
    ):
        path.write_text(json.dumps(wrong))
        refused(begin, kind, *words)
    path.write_text("{any: []}")
    refused(begin, ValueError, "mine.json", "not valid JSON")
    assert not commands


def test_what_the_command_line_sets_goes_to_all_rows(run, out, commands):
    rows = [{**A, "overlays": ["better"]}, {**B, "override": {"fold": 0}}, {**C, "pool": [{"seed": 1}]}]
    run(rows, gain=4, note="-x=1")
    assert table(out) == {(name, "sub-0"): psnr for name, psnr in (("cubic", 30), ("a", 34), ("b", 34), ("c", 34.3))}
    assert "'-x=1'" in (out / "a" / "models" / "model.txt").read_text()


def test_an_evaluation_has_the_overlay_of_the_weights_and_keys_of_its_own(run, out, commands):
    """The overlay of another row's weights where it takes these; a changed key is not taken for what was done."""
    begin = partial(run, [A, {**B, "weights": "a"}, {**C, "override": {"evaluate#note": "own"}}])
    refused(lambda: begin(**{"evaluate#note": "all"}), ValueError, "row 'c' sets evaluate#note")
    refused(lambda: begin(**{"evaluate#nte": "all"}), ValueError, "a: --evaluate#nte", "mean --evaluate#note?")
    begin()
    said = {name: (out / name / "said.txt").read_text() for name in "abc"}
    models = out / "a" / "models" / "model.pt"
    assert said["a"] == said["b"] == repr([str(models), str(out / "a"), "none"])
    assert said["c"] == repr([str(out / "c" / "models" / "model.pt"), str(out / "c"), "own"])
    assert [any("evaluate#" in word for word in line) for line in commands] == [False] * 4 + [True]
    changed = partial(run, [A, {**B, "weights": "a"}, {**C, "override": {"evaluate#note": "new"}}], resume=True)
    refused(changed, ValueError, "--evaluate#note=own", "--evaluate#note=new")
    refused(lambda: begin(resume=True, overwrite=True), ValueError, "both true")


def test_a_failed_process_is_one_message_and_exit_status_1(bundle, out, monkeypatch):
    rows = table_file(bundle / "mine.json", [{"name": "broken", "override": {"gain": 0}}])
    line = f"common ablate --bundle {bundle} --table {rows} --dataset_dir common/data --output_dir {out} --fold 3"
    monkeypatch.setattr(sys, "argv", line.split())
    said = refused(__main__.main, SystemExit, "broken: training, exit status 1: ", "division by zero")
    assert said.startswith("error: 1 of 1 runs failed") and not (out / "table.json").exists()
    log = out / "broken" / "log.txt"
    assert "Traceback" in (said := log.read_text())
    # What goes on keeps what was said before, and a run that is killed has not failed by that.
    monkeypatch.setattr(sys, "argv", [*line.split(), "--resume", "true"])
    monkeypatch.setattr(execution, "run_program", lambda *_: -9)
    refused(__main__.main, SystemExit, "broken: training, exit status -9: no output")
    assert log.read_text() == said


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not end it")
def test_a_killed_ablate_ends_its_run(bundle, out, tmp_path):
    """The run tells by a pipe that it has begun, and would tell that it was not ended."""
    os.mkfifo(tmp_path / "pipe")
    tells = {"imports": [*TRAIN["imports"], "$import time"], "pipe": f"$open('{tmp_path}/pipe', 'wb', 0)"}
    run = ["$@pipe.write(b'begun')", "$time.sleep(20)", "$@pipe.write(b', outlived')"]
    (bundle / "configs" / "train.json").write_text(json.dumps({**TRAIN, **tells, "run": run}))
    words = f"ablate --table {table_file(tmp_path / 'a.json', [A])} --bundle {bundle} --dataset_dir common/data"
    started = subprocess.Popen([sys.executable, "-m", "common", *words.split(), "--output_dir", str(out)], cwd=ROOT)
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([pipe], [], [], 120)[0] and os.read(pipe, 99) == b"begun"
    started.kill()
    os.set_blocking(pipe, True)
    assert os.read(pipe, 99) == b"" and started.wait() == -9
    os.close(pipe)


def test_a_table_is_of_one_datalist(run, commands, tmp_path):
    """Its folder may be named in other ways, but must hold what it held."""
    data = runs.datalist(tmp_path / "data")
    begin = partial(run, [A, {**B, "override": {"gain": 0}}])
    refused(lambda: begin(data=data), RunsFailedError, "1 of 2")
    refused(lambda: begin(data=f"{data}/", resume=True), RunsFailedError, "1 of 2")
    (data / "dataset.json").write_text('{"test": []}')
    refused(lambda: begin(data=data, resume=True), ValueError, "out/a", "rows.json", "dataset.json of digest")


def test_rows_that_are_there_are_replaced_when_it_is_said(run, out, commands):
    history = out / "b" / "history_2.jsonl"
    history.parent.mkdir(parents=True)
    history.touch()
    refused(lambda: run([A, B]), FileExistsError, history.parent, "--overwrite True")
    assert not commands and history.exists()
    run(overwrite=True)
    assert len(commands) == 4 and not history.exists()


def test_what_is_refused_before_anything_runs(run, out, commands, tmp_path):
    for rows, options, kind, words in (
        ([{**A, "overlay": "better"}], {}, ValueError, ["row 1", "'overlay'", "overlays"]),
        ([{**A, "overlays": "better"}], {}, ValueError, ["'overlays' is 'better'", "array"]),
        ([{**A, "overlays": ["best"]}], {}, FileNotFoundError, ["row 1 ('a')", "best.json"]),
        ([{"name": "a b"}, {"name": "a  b"}], {}, ValueError, ["row 2", "'a  b' and 'a b'", "'a_b'"]),
        ([{"override": {}}], {}, ValueError, ["name is ''"]),
        ([{"name": "HR"}], {}, ValueError, ["name is 'HR'", "LR, guide, cubic, bicubic, HR"]),
        (["a"], {}, ValueError, ["row 1", "'a'"]),
        ([{**A, "pool": [3]}], {}, ValueError, ["'pool' is [3]"]),
        ([{**A, "pool": []}], {}, ValueError, ["'pool' is []"]),
        ([{**A, "weights": "b"}, B], {}, ValueError, ["row 1 ('a')", "'weights' is 'b'", "none"]),
        ([{**A, "weights": 1}], {}, ValueError, ["row 1", "'weights' is 1"]),
        ([A, {**B, "weights": "a", "pool": FOLDS}], {}, ValueError, ["row 2 ('b')", "'pool'", "'a'"]),
        ([A, {**B, "weights": "a", "start": "s"}], {}, ValueError, ["row 2 ('b')", "'start'", "'a'"]),
        ([A, {**B, "start": "a"}], {}, ValueError, ["row 2 ('b')", "'start' is 'a'", "none"]),
        ([{**A, "bundle": "none"}], {}, FileNotFoundError, ["row 1 ('a')", "'bundle'", "none/configs/train.json"]),
        ([], {}, ValueError, ["at least one row"]),
        ([A, {**B, "override": {"gian": 2}}], {}, ValueError, ["b: --gian", "did you mean --gain?"]),
        ([{**A, "override": {"note": "x"}}], {"note": "y"}, ValueError, ["row 'a' sets note"]),
        ([{**A, "pool": [{"loss": {}}]}], {"loss#weight": 2}, ValueError, ["row 'a' sets loss", "loss#weight"]),
        ([A], {"folds": 0}, ValueError, ["folds is 0"]),
        ([{**A, "bundle": str(ROOT / "bundles" / "udean")}], {"folds": 2}, ValueError, ["--folds 2", "'a'", "fold"]),
        ([A], {"size": "tiny"}, FileNotFoundError, ["--size tiny ('a')", "tiny.json"]),
        ([A], {"ckpt_dir": "models"}, ValueError, ["--ckpt_dir"]),
        ([A], {"table": "mian"}, ValueError, ["tables.json", "'mian'", "main, other"]),
        ([A], {"table": "none.json"}, FileNotFoundError, ["none.json", "--table"]),
        ([A], {"default": "none"}, FileNotFoundError, ["--bundle", "none/configs/train.json"]),
        ([A], {"default": None}, ValueError, ["--table main", "--bundle"]),
    ):
        refused(partial(run, rows, **options), kind, *words)
        assert not commands and not out.exists()
    # Misaligned rows on other data, with what to do.
    data = runs.datalist(tmp_path / "data", source=[{"hr": tmp_path / "a.nii.gz"}])
    begin = partial(run, table="I", data=data, default=runs.ROOT / "bundles" / "udean")
    refused(begin, ValueError, "untrained slab network", "dataset.json", "Leave --misaligned out")
    assert not commands and not out.exists()
