"""Real volumes, such as CT, as tissue fractions: their intensities become random tissues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.transforms import Compose

from ...transforms.ct import ResampleHRd
from ...transforms.scan.load import LoadScand
from .signal import TISSUES

_LEVELS = 5  # from the darkest to the brightest part of the body; few, so that noise stays small
_AIR = 0.05  # of the brightest, below which a voxel is no body


def make_anatomy_from_scan(path: Path, spacing: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One subject from a real volume, of which only the anatomy is kept.

    Background and five intensities, evenly spaced between the 1st and the 99th percentile of the body, become random
    tissues. A voxel between two of them is a mixture of both.

    Args:
        path: NIfTI of a CT or MR volume.
        spacing: isotropic voxel size of the result in mm.
        rng: the subject's random generator.

    Returns:
        Tissue fractions of shape (len(TISSUES), X, Y, Z) and the 4x4 affine.
    """
    read = Compose(
        [
            LoadScand("scan", slice_axis="SI", normalise=False, set_aside=False),
            ResampleHRd("scan", spacing=[spacing] * 3),
        ]
    )
    scan = read({"scan": str(path)})["scan"]
    values = scan[0].numpy()
    dark, bright = np.quantile(values, [0, 0.999])
    body = values[values > dark + _AIR * (bright - dark)]
    low, high = np.quantile(body, [0.01, 0.99])
    knots = [dark, *np.linspace(low, high, _LEVELS)]
    tissues = rng.choice(len(TISSUES), len(knots), replace=False)
    fractions = np.zeros((len(TISSUES), *values.shape), np.float32)
    for knot, tissue in enumerate(tissues):
        fractions[tissue] = np.interp(values, knots, np.eye(len(knots))[knot])
    return fractions, np.asarray(scan.affine)
