"""Find pairs of HR and LR that are not of one person, or not in register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...geometry.nearest import ALIKE, correlate_volumes
from ...io.read import read_volume
from ...runtime.progress import make_bar
from ...transforms.scan.extremes import clean_volume

# Heads that were brought to one template are alike: there a pair is false that is this much further from 1 than most.
_APART, _SURE = 4, 0.97  # a correlation that is always enough


def warn_of_false_pairs(root: Path, entries: Sequence[Mapping[str, str]]) -> None:
    """Print the pairs whose HR and LR correlate less than those of one person do, or far less than most pairs.

    Args:
        root: folder of the paths.
        entries: those with "hr" and "lr" are pairs.
    """
    pairs = [entry for entry in entries if "hr" in entry and "lr" in entry]
    found = []
    for entry in make_bar(pairs, "comparing HR and LR", delay=3):
        volumes = [read_volume(root / entry[kind]) for kind in ("hr", "lr")]
        arrays = [each for v in volumes for each in (clean_volume(v.numpy()), v.affine.numpy())]
        found.append(correlate_volumes(*arrays))
    if not pairs or np.isnan(found).all():
        return
    usual = np.nanquantile(found, 0.5, method="higher")
    least = np.clip(1 - _APART * (1 - usual), ALIKE, _SURE)
    false = [f"{e['hr']} and {e['lr']}: {each:.2f}" for e, each in zip(pairs, found, strict=True) if not each >= least]
    if false:
        listing = "\n  ".join(false)
        print(
            f"warning: HR and LR of {len(false)} of {len(pairs)} pairs do not belong together by their correlation, "
            f"expected at least {least:.2f}:\n  {listing}\n"
            "Are they of two people, or not in register? Mend or leave out these files."
        )
