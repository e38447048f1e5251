"""Measure the data consistency of a result with its scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..degradations.base import Degradation
from ..metrics.data_consistency import measure_scan_difference


class MeasureDataConsistencyd(MapTransform):
    """Store the difference between degraded result and scan as "scan_difference", and that beyond noise as
    "consistency_error": :func:`common.metrics.measure_scan_difference`.

    Args:
        keys: key of the result ``(1, X, Y, Z)``, normalised as the scan, before :class:`RestoreVolumed`.
        degradation: from the result to the scan.
        reference: key of the scan ``(1, X, Y, Z)``.
    """

    def __init__(self, keys: KeysCollection, degradation: Degradation, reference: str = "image") -> None:
        super().__init__(keys)
        self.reference = reference
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            result = torch.as_tensor(d[key]).detach()
            d["scan_difference"], d["consistency_error"] = measure_scan_difference(
                result, d[self.reference].as_tensor().to(result.device), [self.degradation]
            )
        return d
