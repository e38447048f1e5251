"""The steps of a session that need the project: ``python -m tests.benchmarks.gpu_session.steps STEP ...``."""

import gc
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch.profiler import ProfilerActivity, profile

from common.commands.datalist import write_datalist
from common.commands.simulate import simulate
from common.data.loaders.slabs import UnpairedSlabLoader
from common.engines import AlternatingTrainer
from tests.bundles import runs

from ..common_parts import command, synchronize
from ..gpu_parts import forget_peak, gpu_gib, initialized, trainer_of
from ..gpu_setup import TINY, make_cohort
from .wheels import LABELS

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
HEADS = 15 if GPU else 6  # where there are no label maps
# Spacing in mm of the draws of each head, and blur in voxels where it comes from a label map.
DRAWS = (([0.75, 1.35], [0.35, 0.65]), ([1.0, 1.6], [0.2, 0.5])) if GPU else (([3.5, 3.8], 0.6), ([3.6, 4.0], 0.6))
CONTRASTS = 3  # of each draw, which are random ones
BATCHES = (96, 192, 384, 768, 1536) if GPU else (2, 4)
FILLED = 0.9  # share of the most slabs a second at which a batch fills the GPU
WARM, TIMED, PROFILED = (5, 15, 5) if GPU else (1, 3, 1)  # iterations
EPOCHS = 6
HELD = 0.85  # share of the rate that was measured, which training holds with its validations


def smoke(bundle: str, folder: str) -> None:
    """Train a bundle for two iterations in each stage, and super-resolve a scan with what that gives, at tiny size."""
    tiny, here = runs.TINY[bundle], Path(folder) / bundle
    cohort = make_cohort(bundle, TINY, here / "cohort")
    where = {"device": f"$torch.device('{DEVICE}')"}
    runs.run(bundle, ["train"], here, dataset_dir=str(cohort), **where, **tiny.lasting(1, 2))
    scan = tiny.save_lr(here / "scans", 7, runs.phantom(7))
    runs.run(bundle, ["inference"], here, output_dir=str(here / "sr"), **where, **tiny.only(scan))
    if len(runs.written(here / "sr")) != 1:
        raise RuntimeError(f"{bundle}: expected one result, found {runs.written(here / 'sr')}")


def heads(folder: str, processes: int) -> None:
    """Simulate heads of several spacings and contrasts, and write the datalist: source, target, validation, test."""
    maps = sorted(LABELS.iterdir()) if LABELS.is_dir() else []
    numbers = range(1, 1 + (len(maps) or HEADS))
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [
            pool.submit(_head, Path(folder), number, draw, maps[number - 1] if maps else None)
            for draw in range(len(DRAWS))
            for number in numbers
        ]
        for future in made:
            future.result()
    *trained, first, second, last = numbers
    half = len(trained) // 2
    write_datalist(
        folder,
        hr="*/*/*.nii.gz",
        subject=r"head\d+",
        source=[f"head{n:02d}_*/*/*" for n in trained[:half]],
        target=[f"head{n:02d}_*/*/*" for n in trained[half:]],
        validation=[f"head{n:02d}_0/*/*_random1*" for n in (first, second)],
        test=f"head{last:02d}_*/*/*_random[1245]*",
    )


def _head(folder: Path, number: int, draw: int, labels: Path | None) -> None:
    """One draw of a head: its contrasts on one grid."""
    spacing, blur = DRAWS[draw]
    options = {}
    if labels is not None:  # simulate takes a folder's first
        own = folder.with_name(f"labels_{number}_{draw}")
        own.mkdir()
        (own / labels.name).symlink_to(labels)
        options = {"labels": str(own), "blur": blur}
    seed, output = 100 * draw + number, str(folder / f"head{number:02d}_{draw}")
    contrasts = [f"random{CONTRASTS * draw + n}" for n in range(1, 1 + CONTRASTS)]  # names differ, as cases' must
    simulate(output, subjects=1, seed=seed, contrasts=contrasts, spacing=spacing, **options)


def train(dataset_dir: str, folder: str, output: str, seconds: float) -> None:
    """Train as the shipped weights were trained, for so long, by the smallest batch that fills the GPU; a profile too.

    Args:
        dataset_dir: of the heads.
        folder: for what training writes.
        output: folder for profile.txt.
        seconds: until the weights must be there; without a GPU a minute is enough.
    """
    end, few = time.monotonic() + (seconds if GPU else min(seconds, 60)), _few(Path(dataset_dir), Path(folder) / "few")
    rates = {}
    for batch in BATCHES:
        try:
            rates[batch] = _rate(trainer_of(_workflow(few, Path(folder) / f"batch_{batch}", batch)), batch)
        except torch.OutOfMemoryError:
            print(f"batch {batch}: does not fit", flush=True)
            break
        finally:
            _free()
    batch = min(b for b, rate in rates.items() if b * rate >= FILLED * max(n * r for n, r in rates.items()))
    plan = {"_target_": f"{__package__}.steps.epoch_length", "batches": "$@data.batches", "rate": rates[batch]}
    trainer = trainer_of(_workflow(Path(dataset_dir), Path(folder) / "trained", batch, EPOCHS, {**plan, "end": end}))

    def end_in_time(engine: AlternatingTrainer) -> None:
        if time.monotonic() > end:  # slower than it was measured; the latest validation's weights are there
            engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, end_in_time)
    trainer.run()
    print(f"{trainer.state.iteration} iterations; {end - time.monotonic():.0f} s are left", flush=True)
    text = _profile(trainer)  # when the weights are there
    Path(output, "profile.txt").write_text(f"{PROFILED} iterations, batch {batch}\n{text}\n")


def epoch_length(batches: UnpairedSlabLoader, rate: float, end: float) -> int:
    """Iterations an epoch, so that training ends in time; the config calls this when the volumes are loaded.

    Args:
        batches: of the training.
        rate: iterations a second.
        end: of the training, as the monotonic clock has it.
    """
    left = end - time.monotonic()
    length = max(1, int(HELD * rate * left / EPOCHS))
    print(f"{_volumes(batches)}; {left:.0f} s for {EPOCHS} epochs of {length} iterations", flush=True)
    return length


def _workflow(
    dataset_dir: Path, output_dir: Path, batch: int, epochs: int = 1, length: int | dict[str, object] = 1
) -> ConfigWorkflow:
    """The training of the weights that ship, but for the size of the batch."""
    names = ["train", "weights", *([] if GPU else ["tiny"])]
    return initialized(
        runs.configs("udean_window", *names),
        "train",
        DEVICE,
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        batch_size=batch,
        max_epochs=epochs,
        epoch_length=length,
        val_interval=1,
        **{"train#trainer#amp": GPU},
    )


def _few(dataset_dir: Path, folder: Path) -> Path:
    """A datalist of the first volume of each group, which is soon loaded."""
    groups = json.loads((dataset_dir / "dataset.json").read_text())
    for name in ("source", "target", "validation", "test"):
        groups[name] = [{**groups[name][0], "hr": str(dataset_dir / groups[name][0]["hr"])}]
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(groups))
    return folder


def _free() -> None:
    """Give the GPU back what trainers held, which know their handlers and are known by them."""
    gc.collect()
    torch.cuda.empty_cache()


def _volumes(batches: UnpairedSlabLoader) -> str:
    return f"{len(batches.source)} volumes of the source on {batches.source[0]['hr'].device}"


def _iterate(trainer: AlternatingTrainer, iterations: int) -> None:
    batches = iter(trainer.data_loader)
    for _ in range(iterations):
        trainer._iteration(trainer, next(batches))
    synchronize()


def _rate(trainer: AlternatingTrainer, batch: int) -> float:
    """Iterations a second."""
    forget_peak(DEVICE)
    _iterate(trainer, WARM)
    begun = time.monotonic()
    _iterate(trainer, TIMED)
    rate = TIMED / (time.monotonic() - begun)
    memory = "" if not GPU else f", {gpu_gib(DEVICE):.1f} GiB"
    print(f"batch {batch}: {rate:.2f} iterations, {batch * rate:.0f} slabs a second{memory}", flush=True)
    return rate


def _profile(trainer: AlternatingTrainer) -> str:
    """Table of the operators that take longest."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]
    with profile(activities=activities) as profiled:
        _iterate(trainer, PROFILED)
    by = "self_device_time_total" if GPU else "self_cpu_time_total"
    return profiled.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=60)


def table(output: str, *folders: str) -> None:
    """Write table.md: PSNR in dB and SSIM of each held-out scan by each method, as evaluations have them."""
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        for row in json.loads(Path(folder, "table.json").read_text())["cases"]:
            found.setdefault(row["case"], {})[row["method"]] = f"{row['psnr']:.2f}, {row['ssim']:.4f}"
    if not found:
        raise RuntimeError("no evaluation has ended")
    methods = [*dict.fromkeys(method for row in found.values() for method in row)]
    lines = [["scan", *methods], ["---"] * (1 + len(methods))]
    lines += [[case, *(row.get(method, "-") for method in methods)] for case, row in found.items()]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    Path(output, "table.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    command({"smoke": smoke, "heads": heads, "train": train, "table": table})
