import json
from unittest.mock import Mock

import pytest
import torch

from common.engines import AlternatingTrainer, Player
from tests.benchmarks import gpu
from tests.benchmarks.common_parts import command
from tests.benchmarks.gpu_parts import MeasuredTraining
from tests.benchmarks.gpu_setup import TINY, TRAININGS, make_cohort, settings
from tests.benchmarks.gpu_tools import check, covered, difference, synchronisation_refused

from .bundles import runs
from .refused import refused

CPU = torch.device("cpu")
PARTS = ["waits", "training", "computing", "float32", "plain loop", "resumed"]


def measured(path, bundle):
    rows = json.loads(path.read_text())["parts"]
    assert not [row for row in rows if "error" in row or row["bundle"] != bundle]
    trainings = [(training.name, part) for training in TRAININGS[bundle] for part in PARTS]
    parts = [("", "data"), *trainings, ("", "volume"), ("", "volume, float32")]
    assert [(row["training"], row["part"]) for row in rows] == parts
    return rows


def test_without_a_gpu_the_same_code_runs_at_tiny_sizes(tmp_path, capsys, monkeypatch):
    suffixes = {name: [training.suffix for training in trainings] for name, trainings in TRAININGS.items()}
    assert suffixes == {name: list(runs.TINY[name].stages) for name in runs.BUNDLES}
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "in_own_process", lambda measure, *args: measure(*args))  # starting another takes long
    gpu.main(bundle="srcnn", iterations=3, output=str(path), device="cpu")
    figures = {row["part"]: row for row in measured(path, "srcnn")}
    assert figures["training"]["iterations"] == 3
    positive = {"computing": "busy_share operators tflops peak_share", "plain loop": "plain_seconds of_plain"}
    positive |= {"volume": "seconds_bf16 seconds_float32", "data": "matrix_tflops", "training": "iterations_a_second"}
    assert all(figures[part][key] > 0 for part, keys in positive.items() for key in keys.split())
    # Convolutions of 9x9, 1x1 and 5x5 from 1 to 8 to 4 to 1 channels: forwards, and backwards for weights and inputs,
    # of which the first needs none for its input. Interpolation is some more.
    pixels, (first, *others) = 4 * 24 * 24, (81 * 8, 8 * 4, 25 * 4)
    operations = figures["computing"]["tflops"] * 1e12 / figures["training"]["iterations_a_second"]
    assert operations == pytest.approx(2 * pixels * (2 * first + 3 * sum(others)), rel=0.03)
    assert figures["resumed"]["resumed_bitwise"]
    said = capsys.readouterr().out
    assert said.startswith("no GPU is measured") and said.endswith("\nall parts passed\n")
    assert said.count("\nsrcnn training |") == 1
    begin, words = gpu.Record(path).begin, ["gpu.json: measured on ", "CPU", "name another --output"]
    refused(lambda: begin({"device": "another"}, ["udean"]), ValueError, *words)
    gpu.Record(path).begin({"device": "another"}, ["srcnn"])
    assert json.loads(path.read_text()) == {"machine": {"device": "another"}, "parts": []}


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [name for name in runs.FORMS if name != "srcnn"])
def test_each_form(bundle, tmp_path):
    gpu.main(bundle=bundle, output=str(tmp_path / "gpu.json"), device="cpu")
    assert all(row["took"] > 0 for row in measured(tmp_path / "gpu.json", bundle))


def test_what_fails_is_said_and_the_rest_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "in_own_process", lambda measure, *args: measure(*args, learning_rate=1e30))
    with pytest.raises(SystemExit) as ended:
        gpu.main(bundle="srcnn", output=str(tmp_path / "gpu.json"), device="cpu")
    assert ended.value.code == 1
    rows = {row["part"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["parts"]}
    assert [part for part in PARTS if "error" not in rows[part]] == ["float32"]
    assert rows["training"]["error"].startswith("FloatingPointError") and "trainer.py:" in rows["training"]["error"]
    assert "no seconds an iteration" in rows["computing"]["error"] and "model.json" in rows["volume"]["error"]
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("srcnn training |"))
    assert row.count("FAILED") == 10 and "FAILED srcnn training resumed: " in said
    monkeypatch.setattr(gpu, "in_own_process", Mock(side_effect=ChildProcessError("killed")))
    refused(lambda: gpu.main(bundle="srcnn", device="cpu"), SystemExit)
    assert "FAILED srcnn process: ChildProcessError: killed" in capsys.readouterr().out
    wrong = {"--bundle=udeen": "bundle is 'udeen', expected one of ", "--iterations=0": "iterations"}
    for argument, message in (wrong | {f"--output={tmp_path}": f"{tmp_path} is a folder"}).items():
        monkeypatch.setattr("sys.argv", ["gpu", argument, "--device", "cpu"])
        refused(lambda: command(gpu.main), SystemExit, f"error: {message}")


def test_a_resumed_run_that_has_lost_its_optimizers_is_found(tmp_path, monkeypatch):
    override = settings("srcnn", TINY, make_cohort("srcnn", TINY, tmp_path / "cohort"))
    own = MeasuredTraining("srcnn", *TRAININGS["srcnn"], TINY, CPU, tmp_path / "srcnn", override, 2, 1.0)
    monkeypatch.setattr(Player, "load_state_dict", lambda *args: None)
    refused(own.resumed, RuntimeError, "resumed run")


def test_the_trainer_alone_may_wait_for_the_gpu(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    trainer_line = compile("tensor.tolist()", AlternatingTrainer._iteration.__code__.co_filename, "eval")
    with synchronisation_refused(torch.device("cuda")) as let_through:
        assert torch.ones(2).tolist() == [1, 1]
        assert modes == ["error"] and not let_through
        assert eval(trainer_line, {"tensor": torch.ones(2)}) == [1, 1]
        assert modes == ["error", "default", "error"] and let_through == [1]
    assert modes[3:] == ["default"] and "tolist" not in vars(torch.Tensor)


def test_comparisons():
    assert covered([(4, 6), (0, 3), (1, 2), (2.5, 3.5)]) == 5.5
    assert difference(torch.tensor([2.0, -3.0]), torch.tensor([2.0, -4.0])) == 0.25
    state = {"step": [torch.ones(2), (1, None)]}
    assert runs.same(state, {"step": [torch.ones(2), (1, None)]})
    assert not any(runs.same(state, {"step": other}) for other in ([torch.zeros(2), (1, None)], [torch.ones(2)]))
    check("a loss", 0.1, 0.1)
    for found in (0.11, float("nan")):
        refused(lambda found=found: check("a loss", found, 0.1), RuntimeError, "a loss: relative difference")
