"""Whether a guide lies on its scan: measured where it lies, nothing is moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from skimage.filters import threshold_otsu

from ...physics.gaussian import FWHM_PER_SIGMA

_SPACING = 2.0  # mm, to which both volumes are blurred
# A guide is off its scan when a small step makes the two more alike by more than this share. On six real pairs the best
# step did so by 0.009 at most where the guide lay right, and by 0.026 at least where it was off by 1.4 mm or more
# (tests/benchmarks/guide_placement.py in revision 225863a).
_STEPS, GAIN = (1.0, 2.0), 0.02
_POINTS, _BINS = 40_000, 64
_AROUND = {"LR": "left-right", "PA": "posterior-anterior", "IS": "inferior-superior"}


def misplacement(lr: MetaTensor, guide: MetaTensor, steps: Sequence[float] = _STEPS) -> dict[str, Any]:
    """Whether a small step makes a guide more like its LR scan than it is where its affine puts it.

    The similarity is scikit-image's normalised mutual information, less 1, at 40,000 points drawn in the LR scan, both
    volumes blurred to 2 mm. Steps go to each side and about each axis, twelve of each size. An error of less than half
    the smallest is not seen. What lies outside of the guide's field of view is not compared.

    Args:
        lr: volume ``(1, X, Y, Z)`` with its affine (mm).
        guide: volume ``(1, X, Y, Z)`` of the same subject with its affine (mm).
        steps: sizes in mm and degrees.

    Returns:
        ``similarity`` where the guide lies, from 0 to 1; ``step``, the one that raises it most, in words;
        ``gain``, by how much of it; ``misplaced``, whether that is more than in pairs that lie on each other. Where the
        two do not overlap, similarity and gain are 0 and ``misplaced`` is true.
    """
    from skimage.metrics import normalized_mutual_information  # here, because it loads scipy.stats, which takes long

    volumes = [_blurred(volume) for volume in (lr, guide)]
    affines = [np.asarray(volume.affine, dtype=np.float64) for volume in (lr, guide)]
    index = np.random.default_rng(0).uniform(0, np.array(volumes[0].shape)[:, None] - 1, (3, _POINTS))
    world = affines[0][:3, :3] @ index + affines[0][:3, 3:]
    back = np.linalg.inv(affines[1])
    there = back[:3, :3] @ world + back[:3, 3:]
    inside = ((there >= 0) & (there <= np.array(volumes[1].shape)[:, None] - 1)).all(axis=0)
    if not inside.any():
        return {"similarity": 0.0, "step": "none", "gain": 0.0, "misplaced": True}
    values, world = map_coordinates(volumes[0], index[:, inside], order=1), world[:, inside]
    bright = values > threshold_otsu(values)
    centre = world[:, bright if bright.any() else slice(None)].mean(axis=1, keepdims=True)

    def similarity(turn: np.ndarray, shift: np.ndarray) -> float:
        moved = Rotation.from_rotvec(turn, degrees=True).as_matrix() @ (world - centre) + centre + shift[:, None]
        found = map_coordinates(volumes[1], back[:3, :3] @ moved + back[:3, 3:], order=1, mode="nearest")
        return float(normalized_mutual_information(values, found, bins=_BINS)) - 1

    still, gains = np.zeros(3), {}
    base = similarity(still, still)
    for size in steps:
        for axis, (sides, around) in enumerate(_AROUND.items()):
            for side, sign in zip(sides, (-1, 1), strict=True):
                step = sign * size * np.eye(3)[axis]
                # The points move the other way than the guide.
                gains[f"{size:g} mm to {side}"] = similarity(still, -step)
                gains[f"{sign * size:g} degrees about the {around} axis"] = similarity(-step, still)
    best = max(gains, key=gains.__getitem__)
    gain = gains[best] / base - 1 if base > 0 else 0.0
    return {"similarity": base, "step": best, "gain": gain, "misplaced": gain > GAIN or base <= 0}


def _blurred(volume: MetaTensor) -> np.ndarray:
    """A volume ``(1, X, Y, Z)`` as voxels of the working spacing would show it, on its own grid."""
    spacing = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    sigma = np.sqrt(np.maximum(_SPACING**2 - spacing**2, 0)) / FWHM_PER_SIGMA / spacing
    return gaussian_filter(torch.as_tensor(volume)[0].float().numpy(), sigma)
