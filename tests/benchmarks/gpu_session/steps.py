"""The steps of a queue that need the project: ``python -m tests.benchmarks.gpu_session.steps STEP ...``."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Events

from common.data import Datalist, VolumeCache
from common.engines import AlternatingTrainer
from tests.bundles import runs

from .. import gpu
from ..common_parts import command
from ..gpu_parts import initialized, trainer_of
from ..gpu_setup import TRAININGS
from .wheels import LABELS, SCANS

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
# What can be trained, and the volumes that its training learns from.
TRAINED = {"udean_window": "@train#dataset", "ct_guided": "@train#source"}
EPOCHS = 6
HELD = 0.85  # share of the rate that was measured, which training holds with its validations
LEAST_RATE = 5.0  # iterations a second where none were measured: what an H200 did
LEAST_GAIN = 0.3  # dB, in the mean of the scans, with which large weights ship
LARGE = "large"  # their name in the table


def cohort(bundle: str, folder: str, threads: int) -> None:
    """Simulate the cohort of release.json in ``folder/data``; without label maps from nilearn's head.

    Without a GPU it is four coarse heads, one for each group, and a body.
    """
    override = {"output_dir": folder, "dataset_dir#threads": threads}
    if not LABELS.is_dir():
        override |= {"labels": None, "dataset_dir#blur": 0.6}
    if not SCANS.is_dir():
        listed = runs.content(bundle, None, "train", "release")["dataset_dir#datalist"]
        kept = {key: [one for one in text.split(",") if "scan" not in one] for key, text in listed.items()}
        override |= {"scans": None, "dataset_dir#datalist": kept}
    if not GPU:
        patterns = {"source": "sub-001/*,sub-body001/*", "target": "sub-002/*", "validation": "sub-003/*"}
        override |= {f"dataset_dir#{key}": n for key, n in {"subjects": 4, "bodies": 1, "spacing": 1.6}.items()}
        override["dataset_dir#datalist"] = {"hr": "*/*.nii.gz", **patterns, "test": "sub-004/*"}
    datalist: Datalist = runs.content(bundle, "datalist", "train", "release", **override)
    there = " and ".join(data.name for data in (LABELS, SCANS) if data.is_dir())
    print(f"{datalist.dataset_dir}, with {there or 'no label maps'}", flush=True)


def train(bundle: str, dataset_dir: str, folder: str, figures: str, seconds: float) -> None:
    """Train the network of large.json as release.json says, for so long.

    Args:
        bundle: its name.
        dataset_dir: of the cohort.
        folder: for what training writes.
        figures: gpu.json, of which the speed of the bundle is read.
        seconds: until the weights must be there; without a GPU a minute is enough.
    """
    end = time.monotonic() + (seconds if GPU else min(seconds, 60))
    rate = read_rate(Path(figures), bundle)
    print(f"{rate:.1f} iterations a second were measured", flush=True)
    length = {"_target_": f"{__package__}.steps.epoch_length", "volumes": TRAINED[bundle]}
    length |= {"rate": rate, "end": end}
    workflow = initialized(
        runs.configs(bundle, "train", "release", "large"),
        "train",
        DEVICE,
        dataset_dir=dataset_dir,
        output_dir=folder,
        **({} if GPU else {**runs.TINY[bundle].network, **runs.TINY[bundle].training})
        | {"max_epochs": EPOCHS, "epoch_length": length, "val_interval": 1},
    )
    trainer = trainer_of(workflow)

    def end_in_time(engine: AlternatingTrainer) -> None:
        if time.monotonic() > end:  # slower than it was measured; the latest validation's weights are there
            engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, end_in_time)
    trainer.run()
    print(f"{trainer.state.iteration} iterations; {end - time.monotonic():.0f} s are left", flush=True)


def read_rate(figures: Path, bundle: str) -> float:
    """Iterations a second of the bundle's training, of gpu.json; or those that are the least to expect."""
    training = (bundle, TRAININGS[bundle][0].name, "speed")
    for record in json.loads(figures.read_text()).values() if figures.is_file() else []:
        for row in record["parts"]:
            if (row["bundle"], row["training"], row["part"]) == training and "iterations_a_second" in row:
                return row["iterations_a_second"]
    return LEAST_RATE


def epoch_length(volumes: VolumeCache, rate: float, end: float) -> int:
    """Iterations an epoch, so that training ends in time; the config calls this when the volumes are loaded.

    Args:
        volumes: of the source.
        rate: iterations a second.
        end: of the training, as the monotonic clock has it.
    """
    left = end - time.monotonic()
    length = max(1, int(HELD * rate * left / EPOCHS))
    device = next(iter(volumes[0].values())).device
    print(
        f"{len(volumes)} volumes of the source on {device}; {left:.0f} s for {EPOCHS} epochs of {length} iterations",
        flush=True,
    )
    return length


def table(output: str, folder: str) -> None:
    """Write table.md: PSNR in dB and SSIM of each held-out scan, whether the weights ship; then what gpu.json has."""
    path = Path(folder, "table.json")
    found: dict[str, dict[str, dict]] = {}
    for row in json.loads(path.read_text())["cases"] if path.is_file() else []:
        found.setdefault(row["case"], {})[row["method"]] = row
    methods = [*dict.fromkeys(method for row in found.values() for method in row)]
    lines = [["scan", *methods], ["---"] * (1 + len(methods))]
    for case, row in found.items():
        lines.append([case, *(f"{row[m]['psnr']:.2f}, {row[m]['ssim']:.4f}" if m in row else "-" for m in methods)])
    texts = ["\n".join(f"| {' | '.join(line)} |" for line in lines), judge(found)]
    figures = Path(output, "gpu.json")
    for name, record in (json.loads(figures.read_text()) if figures.is_file() else {}).items():
        texts.append(f"{name}, {record['machine']}:\n\n{gpu.table(record['parts'])}")
    text = "\n\n".join(texts)
    Path(output, "table.md").write_text(f"{text}\n")
    if not found:
        raise RuntimeError("the evaluation has not ended")


def judge(found: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Whether large weights ship, by the PSNR of each scan by each method."""
    pairs = [(row[LARGE], row[method]) for row in found.values() for method in row if method.endswith(", shipped")]
    if not pairs:
        return "No shipped weights fit these scans. So nothing says whether the large ones ship."
    gain = statistics.fmean(large["psnr"] - shipped["psnr"] for large, shipped in pairs)
    verdict = "They ship" if gain >= LEAST_GAIN else "They do not ship"
    return f"Large against shipped: {gain:+.2f} dB, the mean of {len(pairs)}. {verdict}: +{LEAST_GAIN} dB is needed."


if __name__ == "__main__":
    command({"cohort": cohort, "train": train, "table": table})
