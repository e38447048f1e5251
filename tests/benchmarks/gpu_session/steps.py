"""The steps of a queue that need the project: ``python -m tests.benchmarks.gpu_session.steps STEP ...``."""

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from ignite.engine import Events

from common.data import VolumeCache
from common.data.lists.assignment import write_datalist
from common.data.simulation.subjects import simulate_subjects
from common.engines import AlternatingTrainer
from tests.bundles import runs

from .. import gpu
from ..common_parts import command
from ..gpu_parts import initialized, trainer_of

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
HEADS = 12 if GPU else 5
SPACING = [0.9, 1.25] if GPU else 3.6  # mm; a slab of the paper's has 128 voxels
CONTRASTS = 3  # of each head, which are random ones
EPOCHS = 6
HELD = 0.85  # share of the rate that was measured, which training holds with its validations
UDEAN = ("udean", "training")  # bundle and training, in gpu.json
LEAST = 5.0  # iterations a second where none were measured: what an H200 did that was not captured


def heads(folder: str, processes: int) -> None:
    """Simulate heads of several spacings and contrasts, and write the datalist: source, target, validation, test."""
    numbers = range(1, 1 + HEADS)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_head, [Path(folder, f"head{number:02d}") for number in numbers], numbers))
    *trained, validation, test = (f"head{number:02d}/*/*" for number in numbers)
    half = len(trained) // 2
    groups = {"source": trained[:half], "target": trained[half:], "validation": validation, "test": test}
    write_datalist(folder, hr="*/*/*.nii.gz", subject=r"head\d+", **groups)


def _head(folder: Path, number: int) -> None:
    """The contrasts of a head on one grid; their names differ from other heads', as cases' must."""
    contrasts = [f"random{CONTRASTS * number + n}" for n in range(CONTRASTS)]
    simulate_subjects(str(folder), subjects=1, seed=number, contrasts=contrasts, spacing=SPACING)


def train(dataset_dir: str, folder: str, figures: str, seconds: float) -> None:
    """Train UDEAN as published, at its own sizes, for so long; captured if that was found to be equal.

    Args:
        dataset_dir: of the heads.
        folder: for what training writes.
        figures: gpu.json, of which equality and speed of udean are read.
        seconds: until the weights must be there; without a GPU half a minute is enough.
    """
    end = time.monotonic() + (seconds if GPU else min(seconds, 30))
    captured, rate = choose(Path(figures))
    print(f"captured: {captured}; {rate:.1f} iterations a second were measured", flush=True)
    length = {"_target_": f"{__package__}.steps.epoch_length", "volumes": "@train#dataset", "rate": rate, "end": end}
    workflow = initialized(
        runs.configs("udean", "train", "paper", *([] if GPU else ["tiny"])),
        "train",
        DEVICE,
        dataset_dir=dataset_dir,
        output_dir=folder,
        max_epochs=EPOCHS,
        epoch_length=length,
        **{"train#trainer#cuda_graph": captured},
    )
    trainer = trainer_of(workflow)

    def end_in_time(engine: AlternatingTrainer) -> None:
        if time.monotonic() > end:  # slower than it was measured; the latest validation's weights are there
            engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, end_in_time)
    trainer.run()
    print(f"{trainer.state.iteration} iterations; {end - time.monotonic():.0f} s are left", flush=True)


def choose(figures: Path) -> tuple[bool, float]:
    """Whether UDEAN's training is captured, if that was equal and faster, and iterations a second; of gpu.json."""
    rows = {}
    for record in json.loads(figures.read_text()).values() if figures.is_file() else []:
        rows |= {row["part"]: row for row in record["parts"] if (row["bundle"], row["training"]) == UDEAN}
    equal, plain = rows.get("equality", {}), rows.get("speed", {}).get("iterations_a_second", LEAST)
    captured = rows.get("speed, captured", {}).get("captured_iterations_a_second", 0.0)
    chosen = equal.get("recorded", False) and "error" not in equal and captured > plain
    return chosen, captured if chosen else plain


def epoch_length(volumes: VolumeCache, rate: float, end: float) -> int:
    """Iterations an epoch, so that training ends in time; the config calls this when the volumes are loaded.

    Args:
        volumes: of the source.
        rate: iterations a second.
        end: of the training, as the monotonic clock has it.
    """
    left = end - time.monotonic()
    length = max(1, int(HELD * rate * left / EPOCHS))
    source = f"{len(volumes)} volumes of the source on {volumes[0]['hr'].device}"
    print(f"{source}; {left:.0f} s for {EPOCHS} epochs of {length} iterations", flush=True)
    return length


def table(output: str, *folders: str) -> None:
    """Write table.md: PSNR in dB and SSIM of each held-out scan by each method; then what gpu.json has."""
    found: dict[str, dict[str, str]] = {}
    for path in [Path(folder, "table.json") for folder in folders]:
        for row in json.loads(path.read_text())["cases"] if path.is_file() else []:
            found.setdefault(row["case"], {})[row["method"]] = f"{row['psnr']:.2f}, {row['ssim']:.4f}"
    methods = [*dict.fromkeys(method for row in found.values() for method in row)]
    lines = [["scan", *methods], ["---"] * (1 + len(methods))]
    lines += [[case, *(row.get(method, "-") for method in methods)] for case, row in found.items()]
    texts = ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
    figures = Path(output, "gpu.json")
    for name, record in (json.loads(figures.read_text()) if figures.is_file() else {}).items():
        texts.append(f"{name}, {record['machine']}:\n\n{gpu.table(record['parts'])}")
    text = "\n\n".join(texts)
    Path(output, "table.md").write_text(f"{text}\n")
    if not found:
        raise RuntimeError("no evaluation has ended")


if __name__ == "__main__":
    command({"heads": heads, "train": train, "table": table})
