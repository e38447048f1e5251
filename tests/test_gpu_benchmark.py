import json

import pytest
import torch

from common.engines import Player
from tests.benchmarks import gpu
from tests.benchmarks.gpu_parts import MeasuredTraining
from tests.benchmarks.gpu_setup import PAPER, STAGES, TINY, TRAININGS, make_cohort, settings

from .bundles import runs
from .refused import refused

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bundle", runs.FORMS)
def test_without_a_gpu_the_same_code_runs_at_tiny_sizes(bundle, tmp_path, capsys):
    suffixes = {name: [own.suffix for own in trainings] for name, trainings in TRAININGS.items()}
    assert suffixes == {name: list(runs.TINY[name].stages) for name in runs.BUNDLES}
    path = tmp_path / "gpu.json"
    gpu.main(bundle=bundle, iterations=3, output=str(path), device="cpu")
    figures = {}
    for row in json.loads(path.read_text())["parts"]:
        assert "error" not in row
        figures.setdefault(row["training"], {}).update(row)
    for training in TRAININGS[bundle]:
        found = figures[training.name]
        for key in ("iterations_a_second", "busy_share", "operators"):
            assert found[key] > 0
        assert found["resumed_bitwise"] and found["loss_difference"] == 0
    assert figures[""]["seconds_bf16"] > 0 < figures[""]["seconds_float32"]
    assert capsys.readouterr().out.endswith("\nall parts passed\n")
    words = ["gpu.json: measured on ", "CPU", "name another --output"]
    refused(lambda: gpu.Record(path).begin({"device": "another"}, ["tscn"]), ValueError, *words)


@pytest.mark.parametrize("bundle", STAGES)
def test_phantoms_are_such_as_train_json_asks_for(bundle, tmp_path):
    override = settings(bundle, PAPER, make_cohort(bundle, PAPER, tmp_path / "cohort"))
    training = TRAININGS[bundle][0]  # later stages need what the first has left
    own = MeasuredTraining(bundle, training, PAPER, CPU, tmp_path / training.name, override, 1)
    trainer = own.build(own.beside("own"), 1, 1)
    assert {*trainer.graph.batch_keys} <= next(iter(trainer.data_loader)).keys()


def test_a_training_that_fails_or_is_not_the_same_is_found(tmp_path, monkeypatch, capsys):
    measure = gpu.measure
    with monkeypatch.context() as changed:
        changed.setattr(gpu, "measure", lambda *args: measure(*args, learning_rate=1e30))
        refused(lambda: gpu.main(bundle="srcnn", output=str(tmp_path / "gpu.json"), device="cpu"), SystemExit)
    assert "FAILED srcnn training resumed: FloatingPointError" in capsys.readouterr().out
    override = settings("srcnn", TINY, make_cohort("srcnn", TINY, tmp_path / "cohort"))
    own = MeasuredTraining("srcnn", *TRAININGS["srcnn"], TINY, CPU, tmp_path / "srcnn", override, 2)

    monkeypatch.setattr(Player, "load_state_dict", lambda *args: None)
    refused(own.resumed, RuntimeError, "resumed run")
