"""Trainings of one process among several."""

from contextlib import nullcontext

import torch
import torch.distributed as dist

from common.runtime.distributed import average_gradients, average_tensor, check_connected, train_alone

from ..refused import refused


def test_a_training_alone_neither_waits_for_other_processes_nor_hears_of_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(check_connected, RuntimeError, "not connected")
    with train_alone():
        check_connected()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda value: value.mul_(3))  # the other has twice as much
    parameter = torch.nn.Parameter(torch.zeros(1))
    for block, expected in ((train_alone(), 2.0), (nullcontext(), 3.0)):
        parameter.grad = torch.full((1,), 2.0)
        with block:
            assert average_tensor(torch.tensor(2.0)) == expected
            average_gradients([parameter])
        assert parameter.grad == expected
