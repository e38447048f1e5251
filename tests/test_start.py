"""How a run of a config begins."""

import torch

from common.runtime import threads
from common.start import start

from .refused import refused


def test_a_run_settles_threads_and_seeds_what_is_random(monkeypatch):
    settled, drawn = [], []
    monkeypatch.setattr(threads, "settle", lambda: settled.append(True))
    for seed in (0, 0, 1):
        start("cpu", seed)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2] and len(settled) == 3
    start("cpu")  # which draws nothing, and seeds nothing
    count = torch.cuda.device_count()
    refused(lambda: start(f"cuda:{count}"), ValueError, f"device is cuda:{count}")
