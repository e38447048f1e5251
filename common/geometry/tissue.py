"""Where a volume shows tissue."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu


def find_tissue(values: np.ndarray) -> np.ndarray:
    """The mask of what is brighter than Otsu's threshold between air and tissue."""
    # Flat, because scikit-image mistakes three or four slices for colours.
    return values > threshold_otsu(values.ravel())
