"""The whole measurement of a GPU in about 10 minutes: ``python -m tests.benchmarks.gpu --output gpu.json``.

Of each training of each bundle, at the sizes of train.json on simulated data: iterations a second, the shares of the
time in which the GPU computes and of its bf16 peak, memory, the time against a plain loop in float32; whether the host
waits once an iteration; float32 against the CPU; and a resumed training against one that was not stopped. Then seconds
for a volume. Each bundle is measured in a process of its own, and each part is written down when it is done: ``--bundle
udean`` goes on in the same file. Without a GPU the same code runs at tiny sizes, where figures mean nothing.
"""

import gc
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils import collect_env

from common.io.files import replacing
from common.override_checks import check_device
from common.values import check_whole
from tests.bundles import runs

from . import gpu_parts as parts
from .common_parts import command, in_own_process
from .gpu_setup import PAPER, TINY, TRAININGS, Sizes, make_cohort, settings
from .gpu_tools import place, quiet


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

    def table(self) -> str:
        figures: dict[tuple[str, str], dict[str, object]] = {}
        for row in self.parts:
            own = figures.setdefault((row["bundle"], row["training"]), {})
            own |= dict.fromkeys((_TRAINING | _VOLUME).get(row["part"], ()), "FAILED") if "error" in row else row
        lines = []
        for kind, sign in ((_TRAINING, "iterations_a_second"), (_VOLUME, "seconds_bf16")):
            columns = {figure: heading for part in kind.values() for figure, heading in part.items()}
            lines += [*_rows({key: own for key, own in figures.items() if sign in own}, columns), ""]
        goals = "goals: an iteration in a third of a plain loop's time (0.333), a volume in 0.25 s"
        return "\n".join([*lines, goals])

    def _save(self) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps({"machine": self.machine, "parts": self.parts}, indent=1) + "\n")


# Of each part the figures, and how they are headed in the table.
_TRAINING = {
    "training": {"iterations_a_second": "it/s", "peak_gib": "GiB"},
    "computing": {"busy_share": "busy", "operators": "operators/it", "tflops": "TFLOP/s", "peak_share": "of bf16 peak"},
    "plain loop": {"plain_seconds": "plain loop, s/it", "of_plain": "of plain loop"},
    "waits": {"synchronisations": "waits/it"},
    "float32": {"loss_difference": "from CPU"},
    "resumed": {"resumed_difference": "resumed"},
}
_VOLUME = {
    "volume": dict(seconds_bf16="bf16, s", seconds_float32="float32, s", paper_seconds="the paper, s", peak_gib="GiB"),
    "volume, float32": {"result_difference": "from CPU"},
}


def _name(row: dict[str, object]) -> str:
    return " ".join(str(row[key]) for key in ("bundle", "training", "part") if row[key])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def _rows(figures: dict[tuple[str, str], dict[str, object]], columns: dict[str, str]) -> list[str]:
    lines = [["", *columns.values()], ["---"] * (1 + len(columns))]
    for key, own in figures.items():
        lines.append([" ".join(filter(None, key)), *(_short(own.get(column)) for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def measure(bundle: str, sizes: Sizes, device: torch.device, iterations: int, path: Path, **more: object) -> None:
    """All parts of a bundle, in this process, with so many timed iterations a training; more is of train.json."""
    record, prepared = Record(path), {}
    if device.type == "cuda":
        torch.cuda.set_device(device)  # which is waited for

    def prepare() -> dict[str, object]:
        cohort = make_cohort(bundle, sizes, Path(folder) / "cohort")
        prepared["peak"] = parts.matrix_product(device, sizes.matrix)
        prepared["override"] = {**settings(bundle, sizes, cohort), **more}
        return {"matrix_tflops": prepared["peak"] / 1e12}

    with tempfile.TemporaryDirectory() as folder:
        record.part(bundle, "", "data", prepare)
        if not prepared:
            return
        trained = Path(folder) / bundle
        for training in TRAININGS[bundle]:
            own = parts.MeasuredTraining(bundle, training, sizes, device, trained, iterations=iterations, **prepared)
            record.part(bundle, training.name, "waits", own.synchronisations)
            record.part(bundle, training.name, "training", own.timed)
            record.part(bundle, training.name, "computing", own.computing)
            record.part(bundle, training.name, "float32", own.float32)
            record.part(bundle, training.name, "plain loop", own.plain)
            record.part(bundle, training.name, "resumed", own.resumed)
            del own
            gc.collect()  # trainers and their handlers know each other, and hold the GPU's memory
            torch.cuda.empty_cache()  # inferers look at what is free
        inference = parts.MeasuredInference(bundle, sizes, device, trained)
        record.part(bundle, "", "volume", inference.timed)
        record.part(bundle, "", "volume, float32", inference.float32)


def main(bundle=None, iterations=None, output=None, device=None) -> None:
    """Measure, print a table, and say what is wrong; with any, end with 1.

    Args:
        bundle: one to measure; default all.
        iterations: of each training that are timed; default 200, on a CPU 2.
        output: JSON file of the figures; what it holds of other bundles is kept.
        device: default the GPU where there is one, else the CPU.
    """
    if bundle not in (None, *TRAININGS):
        raise ValueError(f"bundle is {bundle!r}, expected one of {', '.join(TRAININGS)}.")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_device(where)
    where = torch.device("cuda", where.index or 0) if where.type == "cuda" else where
    sizes = PAPER if where.type == "cuda" else TINY
    iterations = sizes.iterations if iterations is None else iterations
    check_whole(iterations=iterations)
    if where.type == "cpu":
        print("no GPU is measured; the same code runs at tiny sizes on the CPU, where figures mean nothing", flush=True)
    bundles = [bundle] if bundle else [*TRAININGS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(output or Path(folder) / "gpu.json")
        Record(path).begin(_machine(where, sizes), bundles)
        for name in bundles:
            try:
                in_own_process(measure, name, sizes, where, iterations, path)
            except Exception as error:  # the process has died, or the disk is full
                row = {"bundle": name, "training": "", "part": "process", "took": 0.0, "error": place(error)}
                Record(path).add(row)
        record = Record(path)
    print(f"\n{record.machine}\n\n{record.table()}")
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
