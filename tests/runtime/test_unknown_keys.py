"""Which keys a config has or accepts, and what is said of others."""

import json
from functools import partial
from pathlib import Path

import pytest

from common.runtime.unknown_keys import refuse_unknown_keys
from common.start import read_arguments

from ..refused import refused

CONFIG = {
    "max_epochs": 3,
    "resume": False,
    "dataset_dir": "data",
    "scale": [2, 2, 2],
    "players": {"generator": {"optimizer": {"_target_": "torch.optim.Adam", "lr": 1}, "rates": [{"x": 1}]}},
    "rows": {"image/l1": [1.0, "@l1", "sr", "hr"]},
    "graph": {"_target_": "common.graph.TensorGraph", "steps": {"sr": ["net", "lr"]}},
    "data": {"_target_": "common.data.KernelSliceLoader", "degradation": {"_target_": "$type(@x)"}},
    "network_def": {"_target_": "common.networks.TranslatedTSRCAN"},
    "join": {"_target_": "torch.nn.Identity"},
    "train": {"dataset": "$@data.train", "trainer": {"_target_": "common.engines.StagedTrainer"}},
    "evaluator": {"_target_": "SupervisedEvaluator"},
}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "train.json", tmp_path / "demo.json"]
    for path, content in zip(paths, (CONFIG, {"cohort_size": 3, "players#generator#steps": 2}), strict=True):
        path.write_text(json.dumps(content))
    return [str(path) for path in paths]


def run(file, *words):
    refuse_unknown_keys(read_arguments(["--config_file", str(file), *words]))


def test_a_key_that_is_there_or_that_a_component_accepts_may_be_set(files):
    """Options of ``**options`` are those of the base, or of ``options_of``; others' classes may take anything."""
    for line in (
        "--max-epochs 5 -scale [1] --players::generator::rates::0::x=-2 --run_id run --tracking mlflow",
        "--players#generator#optimizer#lr 0.1 --players#generator#optimizer#_disabled_ True --train#dataset x",
        "--data#batch_size 2 --data#degradation#anything 2 --network_def#features 8 --join#anything 2",
        "--train#trainer#amp True --resume $@max_epochs==3 --evaluator#epoch_length 3 --graph#steps#back ['net','sr']",
    ):
        run(files[0], *line.split())
    run(files, "--cohort_size", "4", "--players#generator#steps", "1")


def test_another_key_is_refused_with_the_nearest(files):
    for line, *words in (
        ("--max_epoch 5", "--max_epoch: the configs have no such key; did you mean --max_epochs"),
        ("--cohort_size 5", "--cohort_size: the configs have no such key."),
        ("--max_epoch 1 --dataset_di d", "--max_epochs", "--dataset_dir"),  # all at once
        ("--players#generater#optimizer#lr 5", "did you mean --players#generator#optimizer#lr"),
        ("--players#generator#rates#1 1", "--players#generator#rates#1: "),
        ("--rows#image/l2 1", "did you mean --rows#image/l1"),
        ("--amp True", "--evaluator#amp", "--train#trainer#amp"),
        ("--train#trainer#amps True", "did you mean --train#trainer#amp"),
        ("--network_def#feature 2", "did you mean --network_def#features"),
        ("--train#dataset#x 1", "--train#dataset#x: "),
        ("--data#simulated#a 2", "--data#simulated#a: "),
        ("--resume true", "--resume is 'true', expected True or False."),
        ("--resume 1", "--resume is 1, expected True or False."),
        ("--train#trainer#amp true", "--train#trainer#amp is 'true'"),
        ("--scale [true,1]", "--scale is ['true', 1]"),
    ):
        refused(partial(run, files[0], *line.split()), ValueError, *words)


def test_keys_of_an_args_file_are_refused_too(files, tmp_path):
    args = tmp_path / "args.json"
    args.write_text(json.dumps({"cohrt_size": 2}))
    refused(partial(run, files, f"--args_file={args}"), ValueError, "--cohrt_size: ", "did you mean --cohort_size")


def test_a_config_that_lacks_a_file_is_refused_with_the_whole_list(files, tmp_path):
    """As given, with the file behind the first; the list that it names is accepted."""
    (tmp_path / "evaluate.json").write_text(
        json.dumps({"evaluate": {"evaluator": 1}, "run": "$@evaluate#evaluator.run()"})
    )
    (tmp_path / "both.json").write_text(json.dumps({"run": ["$@train#trainer.run()", "$@evaluate#evaluator.run()"]}))
    given = [files[0], str(tmp_path / "both.json"), files[1]]
    said = refused(partial(run, given), ValueError, "evaluate.json has")
    whole = said.partition("--config_file ")[2].strip('"')
    assert [*map(Path, eval(whole))] == [tmp_path / f"{n}.json" for n in ("train", "evaluate", "both", "demo")]
    run(whole)
