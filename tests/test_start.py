"""How a run of a config begins."""

import io
import json
import logging
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common.runtime import threads
from common.runtime.values import check_whole_numbers
from common.start import check_device, prepare_run

from .refused import refused

PROGRAM = "/site-packages/monai/bundle/__main__.py"


@pytest.fixture(autouse=True)
def own_program(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"max_epochs": 3}))
    return str(path)


def begin(*words):
    """Begin a program with this command line."""
    sys.argv = [*words]
    prepare_run("cpu")


def test_a_run_settles_threads_and_seeds_what_is_random(monkeypatch):
    settled, drawn = [], []
    monkeypatch.setattr(threads, "choose_threads", lambda: settled.append(True))
    for seed in (0, 0, 1):
        prepare_run("cpu", seed)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2] and len(settled) == 3
    prepare_run("cpu")  # which draws nothing, and seeds nothing
    count = torch.cuda.device_count()
    refused(lambda: prepare_run(f"cuda:{count}"), ValueError, f"device is cuda:{count}")


def test_a_gpu_is_of_one_process(monkeypatch):
    for key, value in {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused(lambda: prepare_run("cuda:0", 0), ValueError, "3 processes", "2 GPUs", "--nproc_per_node=2")


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


def test_an_error_ends_with_its_first_cause(config, tmp_path, monkeypatch, capsys):
    """In one line; of others' errors it says where in the config, and where the traceback is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = [PROGRAM, "run", "--config_file", config]
    begin(*line)
    end(raise_wrapped, ValueError("Invalid learning rate: -1"))
    (log,) = tmp_path.glob("*.log")
    told = f"The traceback is in {log}; --traceback True prints it."
    assert capsys.readouterr().err == f"\nerror: Invalid learning rate: -1 (in Adam)\n{told}\n"
    assert "Traceback" in log.read_text() and "Failed to instantiate" in log.read_text()
    end(begin, *line, "--max_epoch", "1")  # the package's own
    told = "\nerror: --max_epoch: the configs have no such key; did you mean --max_epochs?\n"
    assert capsys.readouterr().err == told
    for words in (["--traceback", "True"], ["--traceback"], ["--traceback=True"]):
        begin(*line, *words)
        end(raise_wrapped, KeyError("x"))
        said = capsys.readouterr().err
        assert "Traceback" in said and said.endswith("\nerror: KeyError: 'x' (in Adam)\n")
    assert list(tmp_path.glob("*.log")) == [log]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"resume": False}, "; the same command with --resume True goes on from the last state that"),
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


def test_a_run_whose_reader_has_gone_ends_silently(config, monkeypatch, capsys):
    begin(PROGRAM, "run", "--config_file", config)
    closed = []
    monkeypatch.setattr("os.dup2", lambda *streams: closed.append(streams[1]))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 7))
    with pytest.raises(SystemExit) as stop:
        end(raise_wrapped, BrokenPipeError())
    assert stop.value.code == 141 and closed == [7] and not capsys.readouterr().err


def test_a_gpu_that_is_not_there_and_what_is_no_whole_number_are_refused_by_name():
    count = torch.cuda.device_count()
    refused(lambda: check_device(f"cuda:{count}"), ValueError, f"device is cuda:{count}", "cpu")
    for there in ("cpu", torch.device("cpu")):
        check_device(there)
    check_whole_numbers(scale=1, cascade=3)
    for wrong in (2.5, 0, True, "2"):
        refused(partial(check_whole_numbers, scale=wrong), ValueError, f"scale is {wrong!r}", "at least 1")
    check_whole_numbers(0, seed=0)
    refused(partial(check_whole_numbers, 0, seed=-1), ValueError, "seed is -1", "at least 0")
