"""Agreement of two segmentations of one structure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

_PERCENTILE = 95


def measure_agreement(mask: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Dice's coefficient and the 95th percentile of the Hausdorff distance of two masks, by MONAI.

    Args:
        mask, truth: ``(X, Y, Z)``, on one grid.
        spacing: of the voxels in mm.

    Returns:
        Dice, from 0 to 1, and the distance of the borders in mm. If one mask is empty
        it is NaN, and so is Dice if both are.
    """
    if not (mask.any() and truth.any()):
        return 0.0 if mask.any() or truth.any() else float("nan"), float("nan")
    both = mask | truth
    around = [np.flatnonzero(both.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(at[0], at[-1] + 1) for at in around)
    found, true = (torch.from_numpy(each[box])[None, None] for each in (mask, truth))
    dice = compute_dice(found, true)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)  # MONAI 1.6 warns of itself
        distance = compute_hausdorff_distance(found, true, True, percentile=_PERCENTILE, spacing=list(spacing))
    return float(dice), float(distance)
