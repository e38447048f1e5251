"""A training of several processes of torchrun: gradients are averaged."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def get_rank() -> tuple[int, int]:
    """Number of this process, from 0, and number of processes on all nodes, from torchrun."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextlib.contextmanager
def train_alone() -> Iterator[None]:
    """Let a training in the block be that of this process, as each process has other scans."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def trains_alone() -> bool:
    """Whether a training is that of this process, because no others are connected, or in :func:`train_alone`."""
    return _alone.get() or not dist.is_initialized()


def check_connected() -> None:
    """Raise a RuntimeError if torchrun started several processes that should train together and are not connected."""
    if get_rank()[1] > 1 and not dist.is_initialized() and not _alone.get():
        raise RuntimeError(
            "several processes were started, but they are not connected: call common.start.prepare_run, "
            "with a seed, in the config's initialize."
        )


def choose_device() -> torch.device:
    """The GPU of this process by its number on the node, or the CPU. Several processes may share a GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def connect_training(device: torch.device | str) -> None:
    """Connect the processes of a training that torchrun started. They average their gradients.

    Args:
        device: of this process.
    """
    if get_rank()[1] == 1 or dist.is_initialized():
        return
    device = torch.device(device)
    if device.type == "cuda":
        count, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if processes > count:
            raise ValueError(
                f"torchrun started {processes} processes here, but torch finds {count} GPU{'s' * (count > 1)}; give "
                f"--nproc_per_node={count} to torchrun, or --device cpu to the training."
            )
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)


def print_once(line: str) -> None:
    """Print a line once, whatever the number of processes."""
    if get_rank()[0] == 0:
        print(line, flush=True)


def average_tensor(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes of a training, which must all take the same decisions."""
    if not trains_alone():
        value = value.clone()
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Average the gradients of parameters over the processes of a training, in place."""
    if trains_alone():
        return
    gradients: list[Any] = [p.grad for p in parameters if p.grad is not None]
    means = average_tensor(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    # Copied in place: with a gradient in another layout than its weight, Adam is slower.
    for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
