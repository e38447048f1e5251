"""Flips of HR volumes before they are degraded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import RandFlipd


class RandFlipHRd(RandFlipd):
    """MONAI's ``RandFlipd`` of HR volumes, before LR is made from them.

    An entry with its own "lr" does not change: with k-space truncation a flip of the pair would move HR against LR.
    Args are those of ``RandFlipd``.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        return dict(data) if "lr" in data else super().__call__(data, lazy)
