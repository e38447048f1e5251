"""How a run of a config begins."""

import sys

import torch

from common import start
from common.runtime import threads
from common.start import prepare_run

from .refused import refused


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


def test_an_export_which_lacks_the_checks_refuses_keys_that_no_config_has(monkeypatch, tmp_path):
    config = tmp_path / "inference.json"
    config.write_text('{"scale": 2, "evaluator": {"amp": false}}')
    line = ["bundle/__main__.py", "run", "--config_file", str(config), "--scale", "3", "--evaluator#amp", "True"]
    monkeypatch.setattr(start, "check_overrides", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", line)
    prepare_run("cpu")
    monkeypatch.setattr(sys, "argv", [*line, "--scal", "3"])
    refused(lambda: prepare_run("cpu"), ValueError, "--scal: the configs have no such key")


def test_a_gpu_is_of_one_process(monkeypatch):
    for key, value in {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused(lambda: prepare_run("cuda:0", 0), ValueError, "3 processes", "2 GPUs", "--nproc_per_node=2")
