"""Whether two stacks are of one contrast."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

_TISSUE = 0.1  # of the brightest
_DETAIL = 4.0  # pixels, standard deviation of the blur that is subtracted to get the detail
_BORDER = 3  # pixels of tissue next to air, which are an edge in any contrast
_FEWEST = 200  # voxels


def likeness(stack: torch.Tensor, shown: torch.Tensor, seen: torch.Tensor) -> float:
    """The correlation of detail in tissue: near 1 for the same contrast, near 0 or below for another.

    Args:
        stack: ``(X, Y, Z)``, slices along the last axis.
        shown: a volume's values in the same voxels.
        seen: 1 in voxels that lie in the volume, else 0.

    Returns:
        The correlation; 0 if there are fewer than 200 voxels to compare.
    """
    y, s, inside = (v.double().cpu().numpy() for v in (stack, shown, seen))
    tissue = (y > _TISSUE * np.percentile(y, 99)) & (s > _TISSUE * np.percentile(s, 99)) & (inside > 0)
    tissue = binary_erosion(tissue, np.ones((3, 3, 1)), iterations=_BORDER)
    if tissue.sum() < _FEWEST:
        return 0.0
    details = [(v - gaussian_filter(v, (_DETAIL, _DETAIL, 0)))[tissue] for v in (y, s)]
    return float(np.corrcoef(*details)[0, 1])
