"""What other work costs a network on the CPU, by threads: ``python -m tests.benchmarks.threads main``.

Each run is a process of its own: torch's default, the threads that :func:`common.threads.settle` chooses, one thread,
and ``OMP_WAIT_POLICY=passive``; alone, and beside a process that keeps the first core busy.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import fire

WAYS = {
    "default": {},
    "settled": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


@contextlib.contextmanager
def other_work() -> Iterator[None]:
    """A process that never waits, on the first of this process's cores."""
    first = min(os.sched_getaffinity(0))
    busy = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{first}])\nwhile True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def work(bundle: str, settle: bool, count: int) -> None:
    """Print the seconds that it takes to choose the threads, and for so many calls of a bundle's network."""
    import torch
    from monai.bundle import ConfigParser

    from common import threads

    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}/configs/inference.json")
    parser.read_meta(f"bundles/{bundle}/configs/metadata.json")
    network = parser.get_parsed_content("network_def").eval()
    image = parser["_meta_#network_data_format#inputs#image"]
    shape = [64 if size == "n" or isinstance(size, str) else size for size in image["spatial_shape"]]
    example = torch.rand(1, image["num_channels"], *shape)
    start = time.perf_counter()
    if settle:
        threads.settle()
    chosen = time.perf_counter()
    with torch.no_grad():
        network(example)
        begun = time.perf_counter()
        for _ in range(count):
            network(example)
    print(chosen - start, time.perf_counter() - begun, torch.get_num_threads())


def main(bundle: str = "udean", count: int = 12, repeats: int = 3) -> None:
    """Print medians, and ratios to torch's default alone.

    Args:
        bundle: whose network is called, of inference.json's sizes.
        count: calls.
        repeats: processes of which the median is taken.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "GOMP_"))}
    base = None
    for beside, place in (("alone", contextlib.nullcontext), ("beside a busy process", other_work)):
        for way, variables in WAYS.items():
            line = [sys.executable, "-m", "tests.benchmarks.threads", "work", bundle, str(way == "settled"), str(count)]
            with place():
                runs = [
                    subprocess.run(line, env={**environment, **variables}, capture_output=True, text=True, check=True)
                    for _ in range(repeats)
                ]
            found = [[float(word) for word in run.stdout.splitlines()[-1].split()] for run in runs]
            choosing, seconds, threads = (median(values) for values in zip(*found, strict=True))
            base = seconds if base is None else base
            print(
                f"{beside:22} {way:11} {seconds:7.2f} s  ratio {seconds / base:6.2f}  {threads:g} threads"
                + (f", chosen in {1e3 * choosing:.0f} ms" if way == "settled" else "")
            )


if __name__ == "__main__":
    fire.Fire({"main": main, "work": work})
