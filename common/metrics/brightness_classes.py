"""Regions of a volume by which results are reported."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_multiotsu

REGIONS = ("air", "dark", "middle", "bright")
_BINS = 256


def divide_by_brightness(voxels: np.ndarray) -> dict[str, np.ndarray]:
    """Divide a volume of any body part into air and three classes of tissue, by Otsu's thresholds.

    Args:
        voxels: ``(X, Y, Z)``, any units.

    Returns:
        Masks by the names air, dark, middle and bright.

    Raises:
        ValueError: when the volume has too few different values.

    Source:
        Liao et al., A fast algorithm for multilevel thresholding, Journal of Information Science and Engineering 17,
        2001.
    """
    top = float(np.quantile(voxels, 0.999))
    clipped = voxels.clip(min(float(voxels.min()), 0.0), top)
    if len(np.unique(clipped)) < len(REGIONS):
        raise ValueError("a volume of fewer than four different values has no air and three classes of tissue.")
    thresholds = threshold_multiotsu(clipped, len(REGIONS), _BINS)
    classes = np.digitize(voxels, thresholds)
    return {name: classes == i for i, name in enumerate(REGIONS)}
