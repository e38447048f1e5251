"""The whole measurement of a GPU: ``python -m tests.benchmarks.gpu --output gpu.json``.

Of each training of each bundle, on simulated data. Equality: a resumed training against one that was not stopped;
float32 against the CPU. Speed: iterations a second, memory, and the share of the time in which the GPU
computes; then seconds for a volume. All bundles have processes of their own, and each part is written down when it is
done: ``--bundle udean`` goes on in the same file. Without a GPU the same code runs at tiny sizes, where figures mean
nothing.
"""

import gc
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils import collect_env

from common.io.writing import write_atomically
from common.runtime.values import check_whole_numbers
from common.start import check_device
from tests.bundles import runs

from . import gpu_parts as parts
from .common_parts import command, in_own_process
from .gpu_setup import PAPER, TINY, TRAININGS, Sizes, make_cohort, settings
from .gpu_tools import place, quiet

EQUALITY, SPEED = "equality", "speed"


class Record:
    """``{"machine": {...}, "parts": [{"bundle", "training", "part", "took", perhaps "error", ...}]}`` in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.machine, self.parts = path, {}, []
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a JSON file in it as --output.")
        if path.is_file():
            try:
                found = json.loads(path.read_text())
                self.machine, self.parts = found["machine"], found["parts"]
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{path}: not what this command writes; name another --output.") from None

    def begin(self, machine: dict[str, object], bundles: Sequence[str]) -> None:
        """Measure these bundles anew; the file's other parts must be of the same machine."""
        self.parts = [part for part in self.parts if part["bundle"] not in bundles]
        if self.parts and self.machine != machine:
            raise ValueError(f"{self.path}: measured on {self.machine}, but this is {machine}; name another --output.")
        self.machine = machine
        self._save()

    def part(self, bundle: str, training: str, name: str, measure: Callable[[], dict[str, object]]) -> None:
        """Measure a part, write it down and say it in a line; an error is kept as what was found."""
        row: dict[str, object] = {"bundle": bundle, "training": training, "part": name}
        start = time.perf_counter()
        try:
            with quiet():
                row |= measure()
        except Exception as error:
            row["error"] = place(error)
            traceback.print_exception(runs.first_cause(error))
        self.add({**row, "took": time.perf_counter() - start})

    def add(self, row: dict[str, object]) -> None:
        self.parts.append(row)
        self._save()
        known = ("bundle", "training", "part", "took", "error")
        figures = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in known)
        print(f"{_name(row)}: {row.get('error') or figures or 'done'} [{row['took']:.1f} s]", flush=True)

    def failed(self, bundles: Sequence[str]) -> list[str]:
        return [f"{_name(row)}: {row['error']}" for row in self.parts if row["bundle"] in bundles and "error" in row]

    def _save(self) -> None:
        with write_atomically(self.path) as temporary:
            temporary.write_text(json.dumps({"machine": self.machine, "parts": self.parts}, indent=1) + "\n")


# Of each part the figures, and how they are headed in the table.
_FIGURES = {
    "speed": {"iterations_a_second": "it/s", "peak_gib": "GiB"},
    "busy": {"busy_share": "busy", "operators": "kernels/it"},
    "resumed": {"resumed_difference": "resumed"},
    "float32": {"loss_difference": "from CPU"},
    "volume": {"seconds_bf16": "bf16, s", "seconds_float32": "float32, s", "volume_gib": "bf16, GiB"},
    "volume, float32": {"result_difference": "from CPU, volume"},
}


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A line for each training and each bundle's volumes, with the figures of its parts."""
    figures: dict[str, dict[str, object]] = {}
    for row in rows:
        own = figures.setdefault(f"{row['bundle']} {row['training']}".strip(), {})
        own |= dict.fromkeys(_FIGURES.get(row["part"], ()), "FAILED") if "error" in row else row
    columns = {figure: heading for part in _FIGURES.values() for figure, heading in part.items()}
    columns = {figure: head for figure, head in columns.items() if any(figure in own for own in figures.values())}
    lines = [["", *columns.values()], ["---"] * (1 + len(columns))]
    for name, own in figures.items():
        if own.keys() & columns.keys():
            lines.append([name, *(_short(own.get(figure)) for figure in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(row: dict[str, object]) -> str:
    return " ".join(str(row[key]) for key in ("bundle", "training", "part") if row[key])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def measure(
    bundle: str, sizes: Sizes, device: torch.device, iterations: int, path: Path, only: str | None, **more: object
) -> None:
    """The parts of a bundle, in this process, with so many timed iterations a training; more is of train.json."""
    record, override = Record(path), {}
    if device.type == "cuda":
        torch.cuda.set_device(device)  # which is waited for

    def prepare() -> dict[str, object]:
        override.update({**more, **settings(bundle, sizes, make_cohort(bundle, sizes, Path(folder) / "cohort"))})
        return {}

    def part(training: str, name: str, of: str, measured: Callable[[], dict[str, object]]) -> None:
        if only in (None, of):
            record.part(bundle, training, name, measured)
            gc.collect()  # trainers and their handlers know each other, and hold the GPU's memory
            torch.cuda.empty_cache()  # inferers look at what is free

    with tempfile.TemporaryDirectory() as folder:
        record.part(bundle, "", "data", prepare)
        if not override:
            return
        trainings = []
        for training in TRAININGS[bundle]:
            trained = Path(folder) / bundle
            own = parts.MeasuredTraining(bundle, training, sizes, device, trained, override, iterations)
            part(training.name, "resumed", EQUALITY, own.resumed)
            part(training.name, "float32", EQUALITY, own.float32)
            part(training.name, "speed", SPEED, own.speed)
            own.leave()
            trainings.append(own)
        inference = parts.MeasuredInference(bundle, sizes, device, Path(folder) / bundle)
        part("", "volume", SPEED, inference.timed)
        part("", "volume, float32", EQUALITY, inference.float32)
        for own in trainings:
            part(own.training.name, "busy", SPEED, own.busy)


def main(bundle=None, only=None, tiny=False, iterations=None, output=None, device=None, overlay=None) -> None:
    """Measure, print a table, and say what is wrong; with any, end with 1.

    Args:
        bundle: one to measure; default all.
        only: "equality" or "speed"; default both.
        tiny: whether networks and volumes are tiny, as they are on a CPU.
        iterations: of each training that are timed, at most; default 200, tiny 2.
        output: JSON file of the figures; what it holds of other bundles is kept.
        device: default the GPU where there is one, else the CPU.
        overlay: name of a config of the bundle, whose values are laid over train.json, such as large.
    """
    for name, value, known in (("bundle", bundle, TRAININGS), ("only", only, (EQUALITY, SPEED))):
        if value not in (None, *known):
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}.")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_device(where)
    where = torch.device("cuda", where.index or 0) if where.type == "cuda" else where
    sizes = TINY if where.type == "cpu" or tiny else PAPER
    iterations = sizes.iterations if iterations is None else iterations
    check_whole_numbers(iterations=iterations)
    if where.type == "cpu":
        print("no GPU is measured; the same code runs at tiny sizes on the CPU, where figures mean nothing", flush=True)
    more = json.loads(Path(*runs.configs(bundle, overlay)).read_text()) if overlay else {}
    bundles, run = ([bundle], partial(measure, **more)) if bundle else ([*TRAININGS], partial(in_own_process, measure))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(output or Path(folder) / "gpu.json")
        Record(path).begin(_machine(where, sizes), bundles)
        for name in bundles:
            try:
                run(name, sizes, where, iterations, path, only)
            except Exception as error:  # the process has died, or the disk is full
                row = {"bundle": name, "training": "", "part": "process", "took": 0.0, "error": place(error)}
                Record(path).add(row)
        record = Record(path)
    print(f"\n{record.machine}\n\n{table(record.parts)}")
    failed = record.failed(bundles)
    print("\n".join(["", *(f"FAILED {line}" for line in failed)]) if failed else "\nall parts passed", flush=True)
    if failed:
        raise SystemExit(1)


def _machine(device: torch.device, sizes: Sizes) -> dict[str, object]:
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "driver": collect_env.get_nvidia_driver_version(collect_env.run) if gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "sizes": sizes.name,
    }


if __name__ == "__main__":
    command(main)
