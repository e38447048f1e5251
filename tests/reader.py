"""``python -m tests.reader -m MODULE ...``: a command of the docs, made short.

Trainings get tiny sizes. ``datalist`` gets the volumes that its patterns name.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser

from common.degradations import GaussianProfile

from .bundles import runs

SHAPE = (64, 68, 44)  # at half the size, one patch of each bundle, as in scans


def grid(coarser: tuple[int, int, int]) -> np.ndarray:
    """The affine of HR. It shows which axis is across slices, also where LR is this much coarser."""
    return np.diag([1.0, 1.0, 4.0 if coarser == (2, 2, 1) else 1.6, 1.0])


def save_scan(path: Path, affine: np.ndarray, factors: tuple[int, int, int] = (1, 1, 1), seed: int = 0) -> Path:
    """Write a head that is coarser by these factors than this grid."""
    return runs.save(path, *runs.degrade(runs.phantom(seed, SHAPE), affine, GaussianProfile(factors)))


def save_guide(path: Path, affine: np.ndarray, seed: int = 0) -> Path:
    """Write a head in another contrast."""
    return runs.save(path, runs.guide_of(runs.phantom(seed, SHAPE)), affine)


def save_labels(folder: Path, count: int) -> None:
    """Write label maps: boxes of skin, soft tissue, bone, CSF, grey and white matter, one in another."""
    values = np.zeros((72, 72, 72), np.int16)
    for depth, label in ((4, 511), (8, 507), (17, 515), (22, 24), (25, 3), (29, 2)):
        values[depth:-depth, depth:-depth, depth:-depth] = label
    folder.mkdir()
    for number in range(count):
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{number:02d}.nii.gz")


def _there(folder: Path, pattern: str) -> bool:
    return any(path.name.endswith(".nii.gz") for path in folder.glob(pattern))


def provide(folder: Path, given: dict[str, str]) -> None:
    """Write volumes for those patterns of ``datalist`` that match none."""
    coarser = tuple(map(int, os.environ["COARSER"]))
    affine = grid(coarser)
    groups = [p for key in ("source", "target", "validation", "test") for p in given.get(key, "").split(",") if p]
    for kind in ("hr", "lr", "guide", "ct"):
        pattern = given.get(kind)
        if not pattern:
            continue
        if "*" in pattern and set(groups) - {pattern}:
            wanted = [group for group in groups if not _there(folder, group)]
            names = [group.replace("*", "1").removesuffix(".nii.gz") + ".nii.gz" for group in wanted]
        elif _there(folder, pattern):
            continue
        else:
            others = kind == "ct" or (kind == "lr" and "hr" in given and "paired" not in given)  # of other people
            names = sorted({pattern.replace("*", f"sub-{i:02d}") for i in (range(11, 17) if others else range(1, 7))})
        for seed, name in enumerate(names):
            if kind == "lr":
                save_scan(folder / name, affine, (1, 1, 4) if "ct" in given else coarser, seed)
            elif kind == "ct":
                runs.save(folder / name, runs.head_ct(seed, SHAPE), affine)
            else:
                {"hr": save_scan, "guide": save_guide}[kind](folder / name, affine, seed=seed)


def tiny_run(words: list[str]) -> list[str]:
    """The arguments of ``monai.bundle run`` with a last overlay that makes it short."""
    at = words.index("--config_file") + 1
    files = words[at].strip("[]").replace("'", "").split(",")
    configs = {Path(file).stem for file in files}
    if "demo" not in configs and configs & {"inference", "scan_alone", "evaluate"}:
        return words  # trains nothing, or only on the scan
    tiny = runs.TINY[re.search(r"bundles/(\w+)/", files[0])[1]]
    overlay = {**tiny.training, **tiny.lasting(1, 2)}
    overlay.pop("slice_axis", None)
    if "--initial" not in words and not any("models/" in file for file in files):
        chosen = {
            key for file in files if "/train.json" not in file and "/demo.json" not in file for key in _keys(file)
        }
        overlay.update({key: value for key, value in tiny.network.items() if key not in chosen})
    if "--dataset_dir" not in words:
        parser = ConfigParser()
        parser.read_config(files)
        overlay["dataset_dir"] = _few(parser["dataset_dir"])
    words = _without(words, overlay)
    Path("tiny_overlay.json").write_text(json.dumps(overlay, default=list))
    words[words.index("--config_file") + 1] = str([*files, "tiny_overlay.json"])
    return words


def _keys(file: str) -> set[str]:
    return set(json.loads(Path(file).read_text()))


def _few(simulated: dict) -> dict[str, object]:
    """What a training simulates, with few and coarse subjects."""
    few = {**simulated, "spacing": 4}
    if "labels" in few:
        few.update(labels="@labels", spacing=2.0)
    if "scans" in few:
        few.update(scans="@scans", bodies=2)
    if "split" in few["datalist"]:
        split = [min(subjects, 2) for subjects in few["datalist"]["split"]]
        few.update(subjects=sum(split), datalist={**few["datalist"], "split": split})
    return few


def _without(words: list[str], keys: Iterable[str]) -> list[str]:
    """A command line without these options."""
    for key in keys:
        if f"--{key}" in words:
            at = words.index(f"--{key}")
            words = words[:at] + words[at + 2 :]
    return words


def _sizes(words: list[str]) -> list[str]:
    """The keys that make a training of ``ablate --bundle`` tiny."""
    if "--bundle" not in words:
        return []
    tiny = runs.TINY[Path(words[words.index("--bundle") + 1]).name]
    return [key for key in (*tiny.network, *tiny.training, "learning_rate", "val_interval") if key != "slice_axis"]


def main(words: list[str]) -> None:
    at = len(words) - words[::-1].index("-m")
    match words[at : at + 2]:
        case ["monai.bundle", "run"]:
            words[at + 2 :] = tiny_run(words[at + 2 :])
        case ["common", "datalist"]:
            given = dict(zip([word.removeprefix("--") for word in words[at + 2 :: 2]], words[at + 3 :: 2], strict=True))
            provide(Path(given["dataset_dir"]), given)
        case ["common", "simulate"]:
            words += ["--spacing", "2"]
        case ["common", "ablate"]:
            words = [*_without(words, ["size", "max_epochs", "epoch_length", *_sizes(words)]), "--size", "small"]
            words += ["--max_epochs", "1", "--epoch_length", "2"]
            if not any(word.endswith(".json") for word in words):
                # test_tasks.py and test_tables_of_the_papers.py have the other rows.
                tables = Path(words[words.index("--bundle") + 1], "configs", "tables.json")
                table = words.index("--table") + 1
                Path("first_row.json").write_text(json.dumps({"": json.loads(tables.read_text())[words[table]][:1]}))
                words[table] = "first_row.json"
        case ["pytest", *_]:
            words += ["--collect-only", "-q"]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main(sys.argv[1:])
