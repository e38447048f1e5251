"""What the benchmarks share: a bundle's objects without its data, and measurements in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import fire
import torch
from monai.bundle import ConfigParser

if TYPE_CHECKING:
    from common.engines import AlternatingTrainer


HERE = Path(__file__).resolve().parents[2]


def command(main: Callable) -> None:
    """Run a benchmark with the arguments of the command line; what is wrong with them is said in a line."""
    try:
        fire.Fire(main)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def parser(*overlays: str, bundle: str = "udean", **override) -> ConfigParser:
    """The configs of a bundle with its data and handlers left out."""
    files = [f"bundles/{bundle}/configs/{name}.json" for name in ("train", *overlays)]
    config = ConfigParser(ConfigParser.load_config_files(files))
    config.update({"train#dataloader": "$[]", "train#handlers": [], "max_epochs": 1, "epoch_length": 1, **override})
    return config


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    call()
    synchronize()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_gib() -> float:
    """Peak memory of this process, or of the GPU where there is one, in GiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_own_process(function: Callable, *args):
    """The result of a function that runs in a new process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[str]:
    """A folder with this repository's ``common`` and ``bundles`` as they were at a revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision, "common", "bundles"], cwd=HERE, capture_output=True)
        if archive.returncode:
            raise ValueError(f"revision {revision}: {archive.stderr.decode().strip()}; name one of git log.")
        subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
        yield folder


def use_tree(tree: str) -> None:
    """Let this process work in a folder and import ``common`` from there, of which nothing may be imported yet."""
    os.chdir(tree)
    sys.path.insert(0, tree)
    import common

    if not Path(common.__file__).is_relative_to(tree):
        raise RuntimeError(f"common was imported from {common.__file__} before it could be from {tree}.")


def plain_iteration(
    trainer: AlternatingTrainer, batch: Mapping[str, torch.Tensor], narrow: bool = False
) -> Callable[[], None]:
    """An iteration of a plain loop: the forward pass is computed for each player anew, as MONAI's GanTrainer does.

    That is all that the generators (networks that are no discriminators) make, and the verdicts that the player reads;
    without gradients where its own networks have no part.

    Args:
        trainer: of whose graph and players it is.
        batch: tensors by name, on the device.
        narrow: whether a player's pass computes only what its losses read.
    """
    graph, players = trainer.graph, trainer.players

    def needed(outputs: set[str]) -> set[str]:
        found = set(outputs)
        for output in reversed(graph.steps):
            if output in found:
                found.update(graph.steps[output][1])
        return found

    reads = {n: needed({t for row in p.losses.inputs().values() for t in row}) for n, p in players.items()}
    made = {o for o in set().union(*reads.values()) & {*graph.steps} if "discriminator" not in graph.steps[o][0]}
    steps = {n: [o for o in graph.steps if o in found | (set() if narrow else made)] for n, found in reads.items()}

    def iteration() -> None:
        for name, player in players.items():
            values = dict(batch)
            for output in steps[name]:
                with contextlib.nullcontext() if output in player.dependent else torch.no_grad():
                    values[output] = graph.compute(output, values)
            total, _ = player.losses(values)
            player.optimizer.zero_grad()
            total.backward(inputs=player.parameters)
            player.optimizer.step()

    return iteration


def device_name() -> str:
    """The device that is measured."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"
