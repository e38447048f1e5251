"""Whether the values of a volume are those of CT."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from scipy import ndimage

AIR = -1000.0
# Scanners clip at -1024 HU and write this, or less, outside of the circle that they reconstruct.
PADDING = -1024.0
# Ranges of CT in HU: lung and emptier, edges between air and body, tissue, bone.
EMPTY, _EDGE, _TISSUE, _BONE = -700.0, (-600.0, -200.0), (-200.0, 150.0), 300.0
# Least share of all voxels that is empty, and of the body's that is bone.
_LEAST_EMPTY, _LEAST_BONE = 5e-4, 1e-3
# Share of the body's voxels in the fullest 100 HU of tissue: CT 0.4 to 0.65, or 0.33 with noise of 60 HU; MR of heads
# at any scale up to 0.26.
_LEAST_PEAK, _PEAK_WIDTH = 0.29, 100
# Voxels of edges for each one of tissue: CT of heads 0.04, of lungs 0.15; MR 0.17 to 1.5 where it has a peak.
_MOST_EDGE = 0.25
_SAMPLES = 2_000_000
_NO_MR = -400.0  # air of CT, also if values were halved


class CheckMRd(MapTransform):
    """Raise a ValueError for volumes that are given as MR but have the intensities of CT.

    These are more than 0.1 % of voxels far below 0, or the intensities of CT at one of the known offsets.

    Args:
        keys: of volumes.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            volume = torch.as_tensor(data[key])
            low, high = np.quantile(sample_voxels(volume), [0.001, 0.999])
            # Signed MR may have an offset, and resampled MR undershoots 0 by a small part of its range.
            negative = low < _NO_MR and low < -0.1 * high
            if negative or find_ct_offset(volume) is not None:
                file = getattr(data[key], "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"{file}: is given as MR but its values, {low:.5g} to {high:.5g} (0.1st to 99.9th percentile), are "
                    "those of CT; MR is 0 or a little more in air. Are MR and CT exchanged? Leave CT out. If it is MR, "
                    "give mri-sr --check_mr False."
                )
        return dict(data)


def find_ct_offset(stored: torch.Tensor | np.ndarray) -> float | None:
    """Find the offset from stored values of any shape to Hounsfield units, if they look like CT.

    CT has air, a narrow peak of soft tissue and fat about 1000 above it, bone, and hardly anything between air and
    fat. An MR volume does not have all of these at any scaling, and its peak is wider.

    Returns:
        0 for values in HU, -1000 or -1024 if air is at 0 or 24, None if the values are not CT. If air is clipped to a
        constant 0, the offset is -1000.
    """
    values = sample_voxels(stored)
    for offset in (0.0, AIR):
        # The tissues' ranges are wide enough to be right 24 HU off as well.
        if _is_hounsfield(values + offset):
            return -1024.0 if offset and _find_air_level(values) > 12 else offset
    return None


def sample_voxels(values: torch.Tensor | np.ndarray) -> np.ndarray:
    """Some two million of the values, spread evenly."""
    flat = torch.as_tensor(values).flatten()
    # An odd step does not stay in a few columns of volumes whose sizes are powers of 2.
    return flat[:: max(1, flat.numel() // _SAMPLES) | 1].double().numpy()


def _is_hounsfield(values: np.ndarray) -> bool:
    # Padding does not count as air. Else, in values that are 1000 too high, air would pass for tissue.
    hu = values[values >= PADDING]
    body = hu[hu > _EDGE[0]]
    tissue = body[(body > _TISSUE[0]) & (body < _TISSUE[1])]
    if not tissue.size or (hu < EMPTY).mean() < _LEAST_EMPTY or (body > _BONE).mean() < _LEAST_BONE:
        return False
    step = 10
    counts, _ = np.histogram(tissue, np.arange(_TISSUE[0], _TISSUE[1] + 1, step))
    peak = np.convolve(counts, np.ones(_PEAK_WIDTH // step), "valid").max() / body.size
    return peak > _LEAST_PEAK and (body < _EDGE[1]).sum() < _MOST_EDGE * tissue.size


def _find_air_level(values: np.ndarray) -> float:
    """Where air is, about 0 or 24, in CT whose values were made positive."""
    # The lowest value and 0 hold padding and what was cut off there, not only air.
    levels = np.arange(max(-100, int(np.floor(values.min())) + 1), 501)
    counts = np.histogram(values, [*(levels - 0.5), 500.5])[0].astype(np.float64)
    zero = np.flatnonzero(levels == 0)
    counts[zero] = (counts[zero - 1] + counts[zero + 1]) / 2
    smooth = ndimage.gaussian_filter1d(counts, 10, mode="nearest")
    peak = smooth[levels < 100].argmax()
    return float(levels[peak]) if smooth[peak] > 5 * smooth[levels > 400].mean() else 0.0
