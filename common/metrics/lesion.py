"""Contrast and size of a lesion that is given by a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from ..geometry.robust import SIGMA_PER_MAD

_GAP, _RING = 2.0, 5.0  # mm from the lesion, between which healthy tissue is looked for
_LEAST = 8  # voxels of healthy tissue


@dataclass(frozen=True)
class LesionMeasure:
    """What is seen of a lesion.

    Attributes:
        contrast: of its mean to the median of the tissue around, in parts of that; NaN where there is none.
        contrast_to_noise: the same in standard deviations of the tissue around.
        millilitres: its volume at half of its greatest contrast; NaN if it is not seen.
    """

    contrast: float
    contrast_to_noise: float
    millilitres: float

    @property
    def is_seen(self) -> bool:
        """Whether the contrast is more than a standard deviation of the tissue around."""
        return bool(abs(self.contrast_to_noise) > 1)


def measure_lesions(
    voxels: np.ndarray, labels: np.ndarray, healthy: np.ndarray, spacing: Sequence[float]
) -> dict[int, LesionMeasure]:
    """Measure the contrast of each lesion to a ring of healthy tissue, 2 to 5 mm away, and its volume.

    Other lesions, and what is within 2 mm of them, do not belong to the ring. The volume is that of the voxels with at
    least half of the lesion's contrast, which are connected to the strongest one, and within 2 mm of the mask. The
    lesion's contrast is the tenth decile of that in the mask, because single voxels are noise.

    Args:
        voxels: ``(X, Y, Z)``, any units.
        labels: whole numbers of lesions on the same grid; 0 elsewhere.
        healthy: mask of what may be healthy tissue; air is not.
        spacing: in mm, (3,).

    Returns:
        By label; only those that have voxels.
    """
    boxes = enumerate(find_objects(labels), 1)
    return {n: _measure(voxels, labels, n, box, healthy, spacing) for n, box in boxes if box is not None}


def _measure(
    voxels: np.ndarray,
    labels: np.ndarray,
    number: int,
    found: tuple[slice, ...],
    healthy: np.ndarray,
    spacing: Sequence[float],
) -> LesionMeasure:
    """Measure the lesion in a box."""
    margin = [math.ceil(_RING / step) + 1 for step in spacing]
    box = tuple(slice(max(side.start - n, 0), side.stop + n) for side, n in zip(found, margin, strict=True))
    values, mask, others = voxels[box].astype(np.float64), labels[box] == number, labels[box] > 0
    away = distance_transform_edt(~mask, sampling=spacing)
    others &= ~mask
    ring = (away > _GAP) & (away <= _RING) & healthy[box]
    if others.any():
        ring &= distance_transform_edt(~others, sampling=spacing) > _GAP
    if ring.sum() < _LEAST:
        return LesionMeasure(math.nan, math.nan, math.nan)
    tissue = float(np.median(values[ring]))
    noise = float(np.median(np.abs(values[ring] - tissue))) * SIGMA_PER_MAD
    difference = float(values[mask].mean()) - tissue
    measure = LesionMeasure(
        difference / tissue if tissue else math.nan,
        difference / noise if noise else math.copysign(math.inf, difference) if difference else 0.0,
        math.nan,
    )
    if not measure.is_seen:
        return measure
    deviation = (values - tissue) * (1 if difference >= 0 else -1)
    top = float(np.quantile(deviation[mask], 0.9))
    # What another lesion reaches is its own.
    regions, _ = label((away <= _GAP) & ~others & (deviation >= top / 2), np.ones((3, 3, 3)))
    strongest = np.unravel_index(np.argmax(np.where(mask, deviation, -np.inf)), mask.shape)
    count = int((regions == regions[strongest]).sum()) if regions[strongest] else 0
    return replace(measure, millilitres=count * math.prod(spacing) / 1000)
