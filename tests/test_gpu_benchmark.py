import json
from unittest.mock import Mock

import pytest
import torch

from common.engines import Player
from tests.benchmarks import gpu
from tests.benchmarks.common_parts import command
from tests.benchmarks.gpu_parts import MeasuredTraining
from tests.benchmarks.gpu_setup import PAPER, STAGES, TINY, TRAININGS, make_cohort, settings
from tests.benchmarks.gpu_tools import check, covered, difference, synchronisation_refused

from .bundles import runs
from .refused import refused

CPU = torch.device("cpu")
PARTS = ["equality", "resumed", "float32", "waits", "speed", "speed, captured"]


def measured(path, bundle):
    rows = json.loads(path.read_text())["parts"]
    assert not [row for row in rows if "error" in row or row["bundle"] != bundle]
    trainings = [(training.name, part) for training in TRAININGS[bundle] for part in PARTS]
    parts = [("", "data"), *trainings, ("", "volume"), ("", "volume, float32")]
    parts += [(training.name, part) for training in TRAININGS[bundle] for part in ("busy", "busy, captured")]
    assert [(row["training"], row["part"]) for row in rows] == parts
    return rows


def test_without_a_gpu_the_same_code_runs_at_tiny_sizes(tmp_path, capsys):
    suffixes = {name: [own.suffix for own in trainings] for name, trainings in TRAININGS.items()}
    assert suffixes == {name: list(runs.TINY[name].stages) for name in runs.BUNDLES}
    path = tmp_path / "gpu.json"
    gpu.main(bundle="srcnn", iterations=3, output=str(path), device="cpu")
    figures = {row["part"]: row for row in measured(path, "srcnn")}
    keys = ("iterations_a_second", "busy_share", "operators")
    found = figures["speed"] | figures["busy"] | figures["speed, captured"] | figures["busy, captured"]
    assert all(found[key] > 0 < found[f"captured_{key}"] for key in keys)
    assert figures["volume"]["seconds_bf16"] > 0 < figures["volume"]["seconds_float32"]
    assert figures["speed"]["iterations"] == figures["speed, captured"]["captured_iterations"] == 3
    assert [figures["equality"][f"captured_{precision}"] for precision in ("float32", "bf16")] == [0, 0]
    assert not figures["equality"]["recorded"] and "not a GPU" in figures["equality"]["reason"]
    assert figures["resumed"]["resumed_bitwise"]
    said = capsys.readouterr().out
    assert said.startswith("no GPU is measured") and said.endswith("\nall parts passed\n")
    assert said.count("\n| srcnn training | ") == 1
    begin, words = gpu.Record(path).begin, ["gpu.json: measured on ", "CPU", "name another --output"]
    refused(lambda: begin({"device": "another"}, ["udean"]), ValueError, *words)
    gpu.Record(path).begin({"device": "another"}, ["srcnn"])
    assert json.loads(path.read_text()) == {"machine": {"device": "another"}, "parts": []}


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [name for name in runs.FORMS if name != "srcnn"])
def test_each_form(bundle, tmp_path):
    gpu.main(bundle=bundle, output=str(tmp_path / "gpu.json"), device="cpu")
    assert all(row["took"] > 0 for row in measured(tmp_path / "gpu.json", bundle))


@pytest.mark.slow
@pytest.mark.parametrize("bundle", STAGES)
def test_phantoms_are_such_as_train_json_asks_for(bundle, tmp_path):
    override = settings(bundle, PAPER, make_cohort(bundle, PAPER, tmp_path / "cohort"))
    training = TRAININGS[bundle][0]  # later stages need what the first has left
    own = MeasuredTraining(bundle, training, PAPER, CPU, tmp_path / training.name, override, 1)
    trainer = own.build(own.beside("own"), 1, 1)
    assert {*trainer.graph.batch_keys} <= next(iter(trainer.data_loader)).keys()


def test_what_fails_is_said_and_the_rest_measured(tmp_path, monkeypatch, capsys):
    measure = gpu.measure
    monkeypatch.setattr(gpu, "measure", lambda *args: measure(*args, learning_rate=1e30))
    with pytest.raises(SystemExit) as ended:
        gpu.main(bundle="srcnn", output=str(tmp_path / "gpu.json"), device="cpu")
    assert ended.value.code == 1
    rows = {row["part"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["parts"]}
    assert [part for part in PARTS if "error" not in rows[part]] == ["float32"]
    assert rows["speed"]["error"].startswith("FloatingPointError") and "common/engines/" in rows["speed"]["error"]
    assert "the training failed" in rows["busy"]["error"] and "model.json" in rows["volume"]["error"]
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("| srcnn training |"))
    assert row.count("FAILED") == 14 and "FAILED srcnn training resumed: " in said
    monkeypatch.setattr(gpu, "in_own_process", Mock(side_effect=ChildProcessError("killed")))
    refused(lambda: gpu.main(device="cpu"), SystemExit)
    said = capsys.readouterr().out
    assert all(f"FAILED {bundle} process: ChildProcessError: killed" in said for bundle in TRAININGS)
    wrong = {
        "--bundle=udeen": "bundle is 'udeen', expected one of ",
        "--only=fast": "only is",
        "--iterations=0": "iterations",
    }
    for argument, message in (wrong | {f"--output={tmp_path}": f"{tmp_path} is a folder"}).items():
        monkeypatch.setattr("sys.argv", ["gpu", argument, "--device", "cpu"])
        refused(lambda: command(gpu.main), SystemExit, f"error: {message}")


def test_a_training_that_is_not_the_same_is_found(tmp_path, monkeypatch):
    override = settings("srcnn", TINY, make_cohort("srcnn", TINY, tmp_path / "cohort"))
    own = MeasuredTraining("srcnn", *TRAININGS["srcnn"], TINY, CPU, tmp_path / "srcnn", override, 2)
    build = MeasuredTraining.build

    def other(*args, captured, **more):
        return build(*args, captured=captured, **more, **({"learning_rate": 0.1} if captured else {}))

    monkeypatch.setattr(MeasuredTraining, "build", other)
    refused(own.equality, RuntimeError, "captured against not")
    monkeypatch.setattr(Player, "load_state_dict", lambda *args: None)
    refused(own.resumed, RuntimeError, "resumed run")


def test_waits_are_refused_for_a_while(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.raises(ValueError), synchronisation_refused(torch.device("cuda")):
        assert modes == ["error"]
        raise ValueError
    assert modes == ["error", "default"]


def test_comparisons():
    assert covered([(4, 6), (0, 3), (1, 2), (2.5, 3.5)]) == 5.5
    assert difference(torch.tensor([2.0, -3.0]), torch.tensor([2.0, -4.0])) == 0.25
    state = {"step": [torch.ones(2), (1, None)]}
    assert runs.same(state, {"step": [torch.ones(2), (1, None)]})
    assert not any(runs.same(state, {"step": other}) for other in ([torch.zeros(2), (1, None)], [torch.ones(2)]))
    check("a loss", 0.1, 0.1)
    for found in (0.11, float("nan")):
        refused(lambda found=found: check("a loss", found, 0.1), RuntimeError, "a loss: relative difference")
