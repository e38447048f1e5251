"""Measure whether a guide is aligned with its scan; nothing is moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from skimage.filters import threshold_otsu

from ...geometry.gaussian import FWHM_PER_SIGMA

_SPACING = 2.0  # mm, to which both volumes are blurred
# A guide is misaligned if a small step raises the similarity by more than this share. On six real pairs the best step
# raised it by at most 0.009 if the guide was aligned, and by at least 0.026 if it was off by 1.4 mm or more
# (tests/benchmarks/guide_placement.py in revision 225863a).
_STEPS, GAIN = (1.0, 2.0), 0.02
_POINTS, _BINS = 40_000, 64
_AROUND = {"LR": "left-right", "PA": "posterior-anterior", "IS": "inferior-superior"}


def find_misplacement(lr: MetaTensor, guide: MetaTensor, steps: Sequence[float] = _STEPS) -> dict[str, Any]:
    """Test whether a small step makes a guide more similar to its LR scan than its affine does.

    The similarity is scikit-image's normalised mutual information minus 1. It is computed at 40,000 random points in
    the LR scan and the guide's field of view, with both volumes blurred to 2 mm. There are twelve steps of each size:
    to each side and about each axis. Errors below half the smallest step are not seen.

    Args:
        lr, guide: volumes ``(1, X, Y, Z)`` of one subject with their affines (mm).
        steps: sizes in mm and degrees.

    Returns:
        ``compute_similarity``: at the guide's present position, 0 to 1. ``step``: the best step, in words. ``gain``:
        relative increase of the similarity by that step. ``misplaced``: whether the gain is larger than in aligned
        pairs. If the two do not overlap, similarity and gain are 0 and ``misplaced`` is true.
    """
    from skimage.metrics import normalized_mutual_information  # here, because it loads scipy.stats, which takes long

    volumes = [_blur(volume) for volume in (lr, guide)]
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

    def compute_similarity(rotation: np.ndarray, shift: np.ndarray) -> float:
        positions = (
            Rotation.from_rotvec(rotation, degrees=True).as_matrix() @ (world - centre) + centre + shift[:, None]
        )
        sampled = map_coordinates(volumes[1], back[:3, :3] @ positions + back[:3, 3:], order=1, mode="nearest")
        return float(normalized_mutual_information(values, sampled, bins=_BINS)) - 1

    still, gains = np.zeros(3), {}
    base = compute_similarity(still, still)
    for size in steps:
        for axis, (sides, around) in enumerate(_AROUND.items()):
            for side, sign in zip(sides, (-1, 1), strict=True):
                step = sign * size * np.eye(3)[axis]
                # The points move the other way than the guide.
                gains[f"{size:g} mm to {side}"] = compute_similarity(still, -step)
                gains[f"{sign * size:g} degrees about the {around} axis"] = compute_similarity(-step, still)
    best = max(gains, key=gains.__getitem__)
    gain = gains[best] / base - 1 if base > 0 else 0.0
    return {"similarity": base, "step": best, "gain": gain, "misplaced": gain > GAIN or base <= 0}


def _blur(volume: MetaTensor) -> np.ndarray:
    """A volume ``(1, X, Y, Z)`` on its own grid, blurred to the working spacing."""
    spacing = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    sigma = np.sqrt(np.maximum(_SPACING**2 - spacing**2, 0)) / FWHM_PER_SIGMA / spacing
    return gaussian_filter(torch.as_tensor(volume)[0].float().numpy(), sigma)
