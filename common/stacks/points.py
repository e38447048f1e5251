"""Points of a stack at which it is compared with a volume."""

from __future__ import annotations

import numpy as np

_POINTS = 40_000
_TISSUE = 0.05  # of the brightest, above which points are compared


def tissue_points(stack: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some voxels of a stack's tissue, drawn at random.

    Args:
        stack: ``(X, Y, Z)``.
        affine: of the stack (mm).

    Returns:
        Their values ``(N,)``, and where their centres lie ``(3, N)`` in mm.
    """
    bright = np.argwhere(stack > _TISSUE * np.percentile(stack, 99))
    chosen = bright[np.random.default_rng(0).permutation(len(bright))[:_POINTS]]
    return stack[tuple(chosen.T)].astype(np.float32), affine[:3, :3] @ chosen.T + affine[:3, 3:]
