"""What the command line of ``python -m monai.bundle run`` may hold, and what is said of the rest."""

import io
import json
import logging
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common import override_checks
from common.override_checks import check_overrides
from common.runtime.values import check_whole_numbers, parse_bool
from common.start import check_device, prepare_run, read_arguments

from .refused import refused

PROGRAM = "/site-packages/monai/bundle/__main__.py"
CONFIG = {
    "players": {"generator": {"optimizer": {"lr": "@learning_rate"}, "losses": [{"weight": 1.0}]}},
    "train": {"trainer": {"max_epochs": "@max_epochs"}},
    "graph": {"_target_": "common.graph.TensorGraph", "steps": {"lr_fake": ["lr_decoder", "hr"]}},
    "axes": "$[0, 1] if @any else [2]",
    "patch": "$[64, @x#y::z]",
    "batch": "$[8, 4][@stage - 1]",
}
CONFIG |= {"dataset_dir": "data", "max_epochs": 3, "learning_rate": 0.1, "scale": [2, 2, 2]}
CONFIG |= {"amp": False, "seed": 0, "range": {"noise": [0, 1]}, "empty": None, "name": "a"}


@pytest.fixture(autouse=True)
def own_program(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "train.json", tmp_path / "demo.json"]
    paths[0].write_text(json.dumps(CONFIG))
    demo = {"cohort_size": 3, "run_demo": "@cohort_size", "graph#steps#hr_self": ["sr_decoder", "hr"]}
    paths[1].write_text(json.dumps(demo))
    return [str(path) for path in paths]


def run(file, *words):
    check_overrides(read_arguments(["--config_file", file, *words]))


def begin(*words):
    """Begin a program with this command line."""
    sys.argv = [*words]
    prepare_run("cpu")


def test_what_fits_the_configs_passes(files):
    for line in (
        "--max_epochs 5 --dataset_dir /data --players#generator#optimizer#lr 0.2",
        "--max_epochs=5 --players::generator::losses::0::weight 0",
        "--max-epochs 5 --learning_rate -1",  # fire takes it for --max_epochs
        "-max_epochs 5 --graph#steps#lr_fake ['lr_decoder','hr'] --train#trainer#max_epochs=2",  # and this too
        "--run_id run --meta-file metadata.json --logging_file=l.conf --tracking mlflow",
        "--scale [2,2,1] --axes [2] --amp True --seed $1+1 --range $None",
        "--scale @axes --amp --seed 1e3 --empty None --batch 4",
        "--seed [1,2] --name 3 --seed=-2",
    ):
        run(files[0], *line.split())


def test_every_misspelt_key_and_every_value_of_another_kind_is_refused(files):
    for line, *words in (
        ("--max_epoch 5", "--max_epoch: ", "did you mean --max_epochs?"),
        ("-max_epoch 5", "--max_epoch: ", "did you mean --max_epochs?"),
        ("--players#generator#optimizer#lrr 5", "did you mean --players#generator#optimizer#lr?"),
        ("--players#generater#optimizer#lr 5", "did you mean --players#generator?"),
        ("--playes::generator::optimizer::lr 5", "did you mean --players"),
        ("--cohort_size 5", "--cohort_size: the configs have no such key"),
        ("--train#trainer#max_epochs#x 1", "max_epochs is @max_epochs; set what it refers to"),
        ("--players#generator#losses#1 1", "players#generator#losses is [{", "replace players#generator#losses as a"),
        ("--max_epoch 1 --dataset_dir d --learning_rat 2", "max_epochs?", "learning_rate?"),  # all at once
        ("--scale 2", "--scale is 2, expected a list", "--scale '[2, 2, 2]'"),
        ("--scale", "--scale is True, expected a list"),
        ("--scale=16", "--scale is 16, expected a list"),
        ("--amp maybe", "--amp is 'maybe', expected True or False"),
        ("--seed x", "--seed is 'x', expected a number such as 0"),
        ("--range None", "--range is None", "--range '$None'"),
        ("--seed null", "--seed is null", "'$None'"),
        ("--traceback maybe", "--traceback is 'maybe', expected True or False"),
    ):
        assert "dataset_dir" not in refused(partial(run, files[0], *line.split()), ValueError, *words), line


def test_keys_of_every_file_of_a_list_are_known_however_it_is_written(files):
    for written in (str(files), json.dumps(files), f"('{files[0]}','{files[1]}')"):
        for words in (["--config_file", written], [f"--config-file={written}"]):
            line = ["run", *words]
            check_overrides(
                read_arguments([*line, "--cohort_size", "4", "--graph#steps#hr_self", "[]", "--max_epochs", "1"])
            )
            wrong = read_arguments([*line, "--cohort_siez", "4"])
            refused(partial(check_overrides, wrong), ValueError, "--cohort_siez: ", "cohort_size")


def test_an_args_file_is_read_and_the_command_line_goes_before_it(files, tmp_path):
    args = tmp_path / "args.json"
    line = ["--args_file", str(args)]
    args.write_text(json.dumps({"config_file": files, "cohort_size": 2}))
    check_overrides(read_arguments([*line, "--max_epochs", "1"]))
    refused(lambda: check_overrides(read_arguments([*line, "--config_file", files[0]])), ValueError, "--cohort_size: ")
    args.write_text(json.dumps({"config_file": files, "cohrt_size": 2}))
    wrong = read_arguments([f"--args_file={args}"])
    refused(partial(check_overrides, wrong), ValueError, "--cohrt_size: ", "cohort_size?")


def test_other_programs_are_left_alone():
    before = sys.excepthook
    for program in (["pytest"], ["/usr/bin/monailabel", "run"], [PROGRAM, "ckpt_export"]):
        begin(*program, "--max_epoch", "1")
        assert sys.excepthook is before


def end(call, *args):
    """As MONAI does; what the excepthook makes of it."""
    try:
        call(*args)
    except (ValueError, RuntimeError) as error:
        sys.excepthook(type(error), error, error.__traceback__)


def raise_wrapped(cause):
    raise RuntimeError("Failed to instantiate component 'torch.optim.Adam' with keywords: lr\n set ...") from cause


def test_an_error_ends_with_its_first_cause(files, tmp_path, monkeypatch, capsys):
    """In one line; of others' errors it says where in the config, and where the traceback is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = [PROGRAM, "run", "--config_file", files[0]]
    begin(*line)
    end(raise_wrapped, ValueError("Invalid learning rate: -1"))
    (log,) = tmp_path.glob("*.log")
    told = f"The traceback is in {log}; --traceback true prints it."
    assert capsys.readouterr().err == f"\nerror: Invalid learning rate: -1 (in Adam)\n{told}\n"
    assert "Traceback" in log.read_text() and "Failed to instantiate" in log.read_text()
    end(begin, *line, "--max_epoch", "1")  # the package's own
    told = "\nerror: --max_epoch: the configs have no such key; did you mean --max_epochs?\n"
    assert capsys.readouterr().err == told
    for words in (["--traceback", "true"], ["--traceback"], ["--traceback=true"]):
        begin(*line, *words)
        end(raise_wrapped, KeyError("x"))
        said = capsys.readouterr().err
        assert "Traceback" in said and said.endswith("\nerror: KeyError: 'x' (in Adam)\n")
    assert list(tmp_path.glob("*.log")) == [log]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"resume": False, "skip_existing": False},
            "; the same command with --resume True goes on from the last state that",
        ),
        ({"skip_existing": False}, "; the same command with --skip_existing True goes on with what is left."),
        ({"other": False}, ".\n"),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(config, told, tmp_path, capsys):
    (tmp_path / "train.json").write_text(json.dumps(config))
    logging.getLogger().addHandler(handler := logging.StreamHandler(io.StringIO()))
    begin(PROGRAM, "run", "--config_file", str(tmp_path / "train.json"))
    for reason in ("", "no disk"):
        logging.getLogger("ignite").error(f"Engine run is terminating due to exception: {reason}")
    logging.getLogger().removeHandler(handler)
    assert handler.stream.getvalue() == "Engine run is terminating due to exception: no disk\n"
    with pytest.raises(SystemExit) as stop:
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    said = capsys.readouterr().err
    assert stop.value.code == 130 and said.startswith(f"\ninterrupted{told}") and said.count("\n") == 2


def test_a_run_whose_reader_has_gone_ends_silently(files, monkeypatch, capsys):
    begin(PROGRAM, "run", "--config_file", files[0])
    closed = []
    monkeypatch.setattr("os.dup2", lambda *streams: closed.append(streams[1]))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 7))
    with pytest.raises(SystemExit) as stop:
        end(raise_wrapped, BrokenPipeError())
    assert stop.value.code == 141 and closed == [7] and not capsys.readouterr().err


def test_a_gpu_that_is_not_there_a_wrong_switch_and_what_is_no_whole_number_are_refused_by_name():
    count = torch.cuda.device_count()
    refused(lambda: check_device(f"cuda:{count}"), ValueError, f"device is cuda:{count}", "torch finds", "cpu")
    for there in ("cpu", torch.device("cpu")):
        check_device(there)
    assert [parse_bool(v, "amp") for v in (True, "true", "True", False, "false", "FALSE")] == [True] * 3 + [False] * 3
    for wrong in ("yes", 1, "", None):
        refused(partial(parse_bool, wrong, "amp"), ValueError, f"amp is {wrong!r}, expected True or False")
    check_whole_numbers(scale=1, cascade=3)
    for wrong in (2.5, 0, True, "2"):
        refused(partial(check_whole_numbers, scale=wrong), ValueError, f"scale is {wrong!r}", "at least 1")
    check_whole_numbers(0, seed=0)
    refused(partial(check_whole_numbers, 0, seed=-1), ValueError, "seed is -1", "at least 0")


COMPONENTS = {
    "seed": 0,
    "values": {"rate": 0.1},
    "residual": False,
    "guided": False,
    "same": "@guided",
    "paths": "$2 if @same else 1",
    "rows": {"image/l1": [1.0, "@l1", "sr", "hr"]},
    "players": {
        "generator": {
            "_target_": "common.engines.Player",
            "networks": ["net"],
            "optimizer": {"_target_": "torch.optim.Adam", "_mode_": "callable", "lr": 0.1},
            "losses": "@rows",
        }
    },
    "graph": {"_target_": "common.graph.TensorGraph", "networks": {"net": "@net"}, "steps": {"sr": ["net", "lr"]}},
    "data": {"_target_": "common.data.Datalist", "degradation": {"_target_": "$type(@x)", "factors": 2}},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": 2, "overlap": "@residual"},
    "train": {"dataset": "$@data.train", "handlers": [], "trainer": {"_target_": "common.engines.AlternatingTrainer"}},
    "validate": {"evaluator": {"_target_": "SupervisedEvaluator", "inferer": "@inferer"}},
    "evaluator": {"_target_": "monai.engines.SupervisedEvaluator", "amp": "@train#amp"},
}


@pytest.fixture
def components(tmp_path):
    path = tmp_path / "components.json"
    path.write_text(json.dumps(COMPONENTS))
    return str(path)


def test_a_key_is_the_users_where_something_reads_it(components):
    for line in (
        "--train#trainer#amp True --validate#evaluator#amp True --players#generator#clip_norm 1.0",
        "--players#generator#optimizer#weight_decay 0.01 --players#generator#optimizer#amsgrad True",
        "--players#generator#_disabled_ True --players#judge x --rows#image/l2 x",
        "--graph#networks#other x --graph#steps#back ['net','sr'] --data#simulated {'spacing':2}",
        "--data#degradation#anything 2 --inferer#sw_batch_size 2",
        "--train#amp True --x 3 --run_id other --other 2 --seed @train#new --train#new 1",
        "--residual True --guided True",
    ):
        run(components, *line.split(), *(["--players", "@players"] if "judge" in line else []))


def test_a_key_that_nothing_would_read_is_answered_with_those_that_were_meant(components):
    for line, *words in (
        ("--amp True", "--amp: the", "mean --evaluator#amp or --train#trainer#amp or --validate#evaluator#amp?"),
        ("--train#trainer#amo True", "train#trainer has no such key; did you mean --train#trainer#amp?"),
        ("--simulated#spacing 2", "did you mean --data#simulated?"),
        ("--data#simulated#a#b 2", "data has no such key; did you mean --data#simulated?"),
        ("--data#folsd 2", "data has no such key; did you mean --data#fold or --data#folds?"),
        ("--weight_decay 2", "the configs have no such key; did you mean --players#generator#optimizer#weight_"),
        ("--train#metric 3", "train has no such key; it has "),
        ("--values#rat 3", "did you mean --values#rate?"),
        ("--train#dataset#x 1", "train#dataset is $@data.train; set what it refers to, or replace train#dataset as"),
        ("--validate#evaluator#inferer#roi_size 1", "validate#evaluator#inferer is @inferer; set what it refers to"),
        ("--guided true", "--guided is 'true', but the config reads a switch; give True or False."),
        ("--residual false", "--residual is 'false'", "give True or False"),  # others' components read it
        ("--players#generator#optimizer#amsgrad true", "give True or False"),
        ("--players#generator#clip_norm None", "'$None'"),
        ("--rows#l2 $None", "rows has no such key; it has image/l1."),
        ("--rows#image $None", "did you mean --rows#image/l1?"),
        ("--image 2", "did you mean --rows#image/l1?"),
    ):
        refused(partial(run, components, *line.split()), ValueError, *words)


def test_an_overlay_sets_what_something_reads_and_leaves_out_what_is_there(components, tmp_path):
    over = tmp_path / "overlay.json"
    for content in (
        {"graph#steps#sr": None, "digest": "of weights", "trained": {"bundle": "srcnn"}, "unknown": None, "new": 1},
        {"+train#handlers": [{"_target_": "monai.handlers.StatsHandler"}], "players#generator#steps": 2},
        {"evaluate": {"evaluator": {}}, "evaluate#evaluator#x": 1, "run_y": "@evaluate#evaluator#x"},
        {
            "fold": 0,
            "data#fold": "@fold",
            "device": "cpu",
            "_note": "x",
            "run_again": "@data",
            "other": "@data#degradation",
            "x": 1,
        },
    ):
        over.write_text(json.dumps(content))
        run(str([components, str(over)]), "--run_id", "other")
    # What a key is for may come in a later overlay, and what read it may go.
    others = [tmp_path / "later.json", tmp_path / "last.json"]
    over.write_text(json.dumps({"folds": 5, "fold": 0, "data#fold": "@fold"}))
    others[0].write_text(json.dumps({"data#folds": "@folds"}))
    others[1].write_text(json.dumps({"data#fold": 1}))
    run(str([components, str(over), *map(str, others)]))
    for key, value, *words in (
        ("graph#steps#sr2", None, "graph#steps has no such key; did you mean graph#steps#sr?"),
        ("+train#trainer#amo", {}, "no such key; did you mean train#trainer#amp?"),
        ("players#generater#steps", 2, "players has no such key; did you mean players#generator?"),
        ("residua", True, "the configs have no such key; did you mean residual?"),
        ("amp", True, "did you mean evaluator#amp or train#trainer#amp or validate#evaluator#amp?"),
        ("evaluater#amp", True, "did you mean evaluator or"),
        ("digest", "of nothing trained", "the configs have no such key"),
    ):
        over.write_text(json.dumps({key: value}))
        words = [f"overlay.json: {key.strip('+')}: ", *words]
        refused(lambda: run(str([components, str(over)])), ValueError, *words)


OPTIONS = {
    "data": {"_target_": "common.data.KernelSliceLoader"},
    "network_def": {"_target_": "common.networks.TranslatedTSRCAN"},
    "join": {"_target_": "torch.nn.Identity"},
    "train": {"trainer": {"_target_": "common.engines.StagedTrainer", "stages": "@stages"}},
    "stages": [{"_target_": "common.engines.CascadeStage", "_mode_": "callable"}],
    "evaluator": {"_target_": "common.engines.CaseEvaluator"},
}


def test_options_are_those_of_what_they_are_passed_on_to(tmp_path):
    """Which is the base, or what is named as ``options_of``; others' classes may take anything."""
    path = tmp_path / "options.json"
    path.write_text(json.dumps(OPTIONS))
    for line in (
        "--data#batch_size 2 --data#factor 2 --network_def#features 8 --train#trainer#amp True --join#anything 2",
        "--stages#0#max_epochs 3 --evaluator#epoch_length 3",
    ):
        run(str(path), *line.split())
    for line, *words in (
        ("--data#batchsize 2", "data has no such key; did you mean --data#batch_size"),
        ("--network_def#feature 2", "did you mean --network_def#features?"),
        ("--train#trainer#amps True", "did you mean --train#trainer#amp"),
        ("--stages#0#max_epoch 2", "did you mean --stages#0#max_epochs"),
        ("--evaluator#inferrer 2", "did you mean --evaluator#inferer"),
        ("--evaluator#options 2", "evaluator has no such key"),
        ("--amp True", "did you mean --evaluator#amp or --train#trainer#amp or --stages#0#amp?"),
        ("--key_val_metric 2", "did you mean --evaluator#key_val_metric?"),
    ):
        refused(partial(run, str(path), *line.split()), ValueError, *words)


def test_an_overlay_of_weights_that_was_moved_is_refused_unless_the_weights_are_named(files, tmp_path):
    overlay, weights = tmp_path / "model.json", tmp_path / "model.pt"
    overlay.write_text(json.dumps({"digest": "of weights", "trained": {}, "checkpoint": "before/model.pt"}))
    line = [str([files[0], str(overlay)])]
    run(*line)  # nothing lies next to it
    weights.touch()
    refused(partial(run, *line), ValueError, str(overlay), "was moved", f"--checkpoint {weights}")
    run(*line, "--checkpoint", str(weights))
    overlay.write_text(json.dumps({"digest": "of weights", "trained": {}, "checkpoint": str(weights)}))
    run(*line)


def test_what_a_run_will_refer_to_is_missing_before_it_begins(tmp_path):
    """With the config next to the others that has it, or a similar key; what the run does not reach does not matter."""
    train = {"learning_rate": 0.1, "optimizer": {"lr": "@learning_rate"}, "trainer": {"x": ["%optimizer", "@stage#0"]}}
    written = {
        "train": {**train, "stage": [1], "unused": "@nothing", "run": "$@trainer.run()"},
        "demo": {"evaluate#evaluator#x": 2, "run": ["$@trainer.run()", "$@evaluate#evaluator.run()"]},
        "evaluate": {"evaluate": {"evaluator": {"x": "@trainer"}}, "run": "$@evaluate#evaluator.run()"},
        "metadata": {"version": "1"},
    }
    paths = {name: tmp_path / f"{name}.json" for name in written}
    for name, content in written.items():
        paths[name].write_text(json.dumps(content))
    names = str([str(paths["train"]), str(paths["demo"])])
    message = refused(partial(run, names), ValueError, "run#1 refers to @evaluate#evaluator", str(paths["evaluate"]))
    assert "metadata" not in message
    run(str([str(paths[name]) for name in ("train", "evaluate", "demo")]), "--evaluate#evaluator#x", "3")
    refused(
        partial(run, str(paths["train"]), "--optimizer#lr", "@learning_rat"),
        ValueError,
        "trainer#x#0#lr refers to @learning_rat",
        "did you mean @learning_rate?",
    )
    written["train"]["optimizer"] = {"_target_": "torch.optim.Adam", "lr": 0.1}
    paths["train"].write_text(json.dumps(written["train"]))
    refused(
        partial(run, str(paths["train"])),
        ValueError,
        "trainer#x#0 lacks params of torch.optim.Adam",
        '"_mode_": "callable"',
    )
    run(str(paths["train"]), "--optimizer#_mode_", "callable")


def test_a_class_by_the_name_that_it_has_in_the_repository(tmp_path, monkeypatch):
    """Where the package is installed, it has another name."""
    monkeypatch.setattr(override_checks, "__package__", "mri_sr_bundles.common")
    (tmp_path / "a.json").write_text(json.dumps({"run": "@filter", "filter": {"_target_": "common.nothing.Blur"}}))
    words = "filter: common.nothing.Blur is installed as mri_sr_bundles.common.nothing.Blur"
    refused(lambda: check_overrides({"config_file": str(tmp_path / "a.json")}), ValueError, words)
