"""Split results into what their scan has measured and what was added."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..degradations.base import Degradation
from ..metrics.added_detail import split_measured


class SplitMeasuredd(MapTransform):
    """Store what was added to a result, "<key>_added": :func:`common.metrics.split_measured`.

    Args:
        keys: of results ``(1, X, Y, Z)`` on the grid of the degradation.
        degradation: from the result to its scan.

    Raises:
        ValueError: when the degradation cannot be split off.
    """

    def __init__(self, keys: KeysCollection, degradation: Degradation) -> None:
        super().__init__(keys)
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[f"{key}_added"] = split_measured(torch.as_tensor(d[key]).detach().float(), self.degradation)[1]
        return d
