"""Find pairs of HR and LR that are not of one person, or not in register."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...geometry.nearest import ALIKE, correlate_volumes
from ...io.read import read_volume
from ...runtime.progress import make_bar
from ...transforms.scan.extremes import clean_volume

# Distance of the correlation to 1, over that with another person's LR. Pairs of eight heads had at most 0.3.
_NEARER = 0.6


def warn_of_false_pairs(root: Path, entries: Sequence[Mapping[str, str]]) -> None:
    """Print the pairs whose HR and LR hardly correlate, or not clearly more than HR and another person's LR.

    Args:
        root: folder of the paths.
        entries: those with "hr" and "lr" are pairs, of the person in "subject".
    """
    pairs = [entry for entry in entries if "hr" in entry and "lr" in entry]

    @functools.lru_cache(maxsize=2)
    def read(path: str) -> tuple[np.ndarray, np.ndarray]:
        volume = read_volume(root / path)
        return clean_volume(volume.numpy()), volume.affine.numpy()

    false = []
    for i, entry in enumerate(make_bar(pairs, "comparing HR and LR", delay=3)):
        hr = read_volume(root / entry["hr"])
        voxels, place = clean_volume(hr.numpy()), hr.affine.numpy()
        own = correlate_volumes(voxels, place, *read(entry["lr"]))
        others = (each for each in [*pairs[i + 1 :], *pairs[:i]] if each["subject"] != entry["subject"])
        other = next((correlate_volumes(voxels, place, *read(each["lr"])) for each in others), np.nan)
        if own < ALIKE or 1 - own > _NEARER * (1 - other):
            false.append(f"{entry['hr']} and {entry['lr']}: {own:.2f}; with another person's LR {other:.2f}")
    if false:
        listing = "\n  ".join(false)
        print(
            f"warning: by their correlation, HR and LR of {len(false)} of {len(pairs)} pairs do not belong together, "
            f"expected at least {ALIKE}, and clearly more than with another person's LR:\n  {listing}\n"
            "Are they of two people, or not in register? Mend or leave out these files."
        )
