"""Tiny volumes, and ways to run a bundle on them."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import torch
from nibabel.affines import from_matvec
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from common.degradations import KSpaceTruncation

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/metadata.json"))

AFFINE = np.diag([1.0, 1.1, 1.2, 1.0])
OBLIQUE = from_matvec(Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() * [1, 1.1, 1.2], [9, 4, -7])

# What makes a bundle small enough to train in a second: the sizes of its networks, and of its training.
NETWORK = {"udean": {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}}
TRAINING = {
    "udean": {"lr_patch": [16, 16, 3], "batch_size": 2, "max_epochs": 2, "epoch_length": 4, "learning_rate": 0.002}
}


def phantom(seed: int, shape: Sequence[int] = (40, 44, 36)) -> np.ndarray:
    """A smooth head-like ellipsoid with smaller ones and texture in it, 0 in the air around, float64."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))

    def ellipsoid(centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
        distance = np.sqrt((((grid - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(axis=0))
        return 1 / (1 + np.exp((distance - 1) / 0.06))

    head = ellipsoid(rng.uniform(-0.05, 0.05, 3), rng.uniform(0.7, 0.78, 3))
    inside = 1.0 + sum(
        rng.uniform(-0.5, 0.5) * ellipsoid(rng.uniform(-0.5, 0.5, 3), rng.uniform(0.1, 0.35, 3)) for _ in range(12)
    )
    inside += 0.15 * gaussian_filter(rng.normal(size=shape), 0.8)
    return 700 * np.clip(head * inside, 0, None)


def save(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE, dtype: type = np.float32, axes: str = "") -> Path:
    """Write a NIfTI, with its axes stored in the given order and direction; integers are stored without scaling."""
    volume = np.rint(volume).astype(dtype) if np.issubdtype(dtype, np.integer) else volume.astype(dtype)
    image = nib.Nifti1Image(volume, affine)
    if axes:
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def degrade(
    volume: np.ndarray, affine: np.ndarray, factors: Sequence[int] = (2, 2, 2)
) -> tuple[np.ndarray, np.ndarray]:
    """The magnitude of a k-space truncated volume, and its affine."""
    operator = KSpaceTruncation(factors)
    return operator(torch.from_numpy(volume)).abs().numpy(), operator.lr_affine(affine)


def datalist(folder: Path, setting: str = "unpaired", **groups: Sequence[Mapping[str, Path]]) -> Path:
    """Write a dataset.json with these entries, each of a subject of the file's name."""

    def listed(entry: Mapping[str, Path]) -> dict[str, str]:
        subject = next(iter(entry.values())).name.split("_")[0]
        return {**{kind: str(path) for kind, path in entry.items()}, "subject": subject}

    data = {group: [listed(entry) for entry in entries] for group, entries in groups.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"setting": setting, **data}))
    return folder


def configs(bundle: str, *names: str) -> list[str]:
    """Paths of a bundle's configs by name."""
    return [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]


def tiny(bundle: str, config: str, folder: Path, **override: object) -> dict[str, object]:
    """Overrides for a tiny run that writes to ``folder``: results to "out", weights to "models"."""
    small = {"device": "$torch.device('cpu')", "output_dir": str(folder / "out"), **NETWORK[bundle]}
    if config == "inference":
        small["checkpoint"] = str(folder / "models" / "model.pt")
    else:
        small.update(ckpt_dir=str(folder / "models"), **TRAINING[bundle])
    return {**small, **override}


def run(bundle: str, names: Sequence[str], folder: Path, **override: object) -> None:
    """Run configs in this process, as ``python -m monai.bundle run`` does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")  # that a config can run code
        monai.bundle.run(
            config_file=configs(bundle, *names), logging_file=False, **tiny(bundle, names[0], folder, **override)
        )


def words(bundle: str, names: Sequence[str], folder: Path, **override: object) -> list[str]:
    """The words that follow ``python -m monai.bundle``."""
    line = ["run", "--config_file", str(configs(bundle, *names))]
    for key, value in tiny(bundle, names[0], folder, **override).items():
        line += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
    return line


def command(
    bundle: str, names: Sequence[str], folder: Path, launcher: Sequence[str] = (sys.executable,), **override: object
) -> subprocess.CompletedProcess:
    """Run configs by the real command line, from the repository's root; ``launcher`` may be torchrun."""
    return subprocess.run(
        [*launcher, "-m", "monai.bundle", *words(bundle, names, folder, **override)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def as_command(line: list[str], log: Path) -> None:
    """What ``python -m monai.bundle`` does with these words, in a process of its own that has imported it already."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = ["monai.bundle", *line]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def history(folder: Path) -> list[dict]:
    """The lines of a run's history.jsonl."""
    return [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]


def first_cause(error: BaseException) -> BaseException:
    """What first went wrong: the rest is MONAI's wrapping."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
