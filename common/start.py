"""The start of a run of a config."""

from __future__ import annotations

import functools
import inspect
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import monai.bundle
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from .runtime import threads
from .runtime.distributed import connect_training
from .runtime.errors import report_uncaught
from .runtime.memory import keep_freed_memory
from .runtime.unknown_keys import refuse_unknown_keys


def prepare_run(device: torch.device | str, seed: int | None = None) -> None:
    """Check the overrides and the device, set the number of threads, and seed the random generators.

    A config's ``initialize`` calls it. A training, which has a seed, connects torchrun's processes.
    Under ``python -m monai.bundle run`` it refuses unknown overrides, and later errors end with one message; with
    ``--traceback True`` the traceback is printed above it. Other programs that load the bundle report by themselves.

    Args:
        device: the device of the run.
        seed: seed of the initial weights and of all random draws; None for a run without random draws.
    """
    if sys.argv[1:2] == ["run"] and Path(sys.argv[0]).parent.name == "bundle":
        arguments = read_arguments(sys.argv[2:])
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for names of files that are no UTF-8
        with_traceback = bool(arguments.get("traceback", False))
        report_uncaught(with_traceback, functools.partial(advise_continuation, arguments))
        refuse_unknown_keys(arguments)
    check_device(device)
    if torch.device(device).type == "cpu":
        threads.choose_threads()
        keep_freed_memory()
    if seed is not None:
        connect_training(device)
        set_determinism(seed)


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Read the words after ``python -m monai.bundle run`` as MONAI does, by Fire.

    MONAI gives components neither these arguments nor the config that they are part of.

    Returns:
        The given arguments of ``monai.bundle.run``, over those of an ``--args_file``.
    """
    given: dict[str, Any] = {}

    @functools.wraps(monai.bundle.run)
    def keep(*args: Any, **override: Any) -> None:
        of_run = zip(inspect.signature(monai.bundle.run).parameters, args, strict=False)
        given.update({name: value for name, value in of_run if value is not None}, **override)

    fire.Fire(keep, command=list(words))
    return {**ConfigParser.load_config_file(given["args_file"]), **given} if "args_file" in given else given


def check_device(device: torch.device | str) -> None:
    """Refuse a device that does not exist."""
    count = torch.cuda.device_count()
    mps = torch.backends.mps.is_available()
    there = ["cpu", *(f"cuda:{index}" for index in range(count)), *["mps"] * mps]
    known = "cpu, as torch finds no GPU here" if len(there) == 1 else f"{' or '.join(there)}, which torch finds here"
    try:
        name = torch.device(device).type
        index = torch.device(device).index or 0
    except (RuntimeError, TypeError):
        name, index = "", 0
    if not (name == "cpu" or (name == "cuda" and index < count) or (name == "mps" and mps)):
        raise ValueError(f"device is {device}, expected {known}; without --device the best is taken.")


def advise_continuation(arguments: Mapping[str, Any]) -> str:
    """Say how to continue an interrupted run, as the end of a sentence; "" if it cannot be continued.

    Args:
        arguments: of ``monai.bundle.run``.
    """
    config = ConfigParser.load_config_files(arguments.get("config_file", {}))
    if "resume" in config:
        return "; the same command with --resume True goes on from the last state that was saved"
    return ""
