"""Voxels that are read on access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class LazyVoxels:
    """The voxels of a volume, read on access like nibabel's array proxies.

    Args:
        read: returns the voxels.
        shape: of the volume.
        dtype: of the voxels.
    """

    is_proxy = True

    def __init__(self, read: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.read, self.shape, self.ndim, self.dtype = read, tuple(shape), len(shape), np.dtype(dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read().astype(dtype or self.dtype, copy=False)
