"""The key metric of an inference: agreement of results with their scans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from ignite.metrics import Metric
from monai.engines import IterationEvents

from ..degradations.base import Degradation
from ..metrics.data_consistency import measure_scan_difference


class DataConsistency(Metric):
    """Mean difference beyond noise between results, degraded again, and their scans.

    It is the key metric of an inference, which knows no HR. NaN if there is no result. Each case's output gets
    "scan_difference" and "consistency_error" from :func:`common.metrics.measure_scan_difference`, of the network's
    result.

    Args:
        degradation: from the result to the scan.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__(skip_unrolling=True)
        self.degradation = degradation

    def attach(self, engine: Any, name: str, *args: Any) -> None:  # type: ignore[override]
        """Measure each result before postprocessing, and put the mean under ``name``."""
        super().attach(engine, name, *args)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._measure)

    def _measure(self, engine: Any) -> None:
        output = engine.state.output
        result, scan = (torch.as_tensor(output[key][0]).detach() for key in ("pred", "image"))
        measured = measure_scan_difference(result, scan.to(result.device), [self.degradation])
        for key, value in zip(("scan_difference", "consistency_error"), measured, strict=True):
            output[key] = torch.tensor([value], dtype=torch.float64)

    def reset(self) -> None:
        """Forget the results."""
        self.errors: list[float] = []

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add the results of a batch; a failed case has none."""
        self.errors += [float(each["consistency_error"]) for each in output]

    def compute(self) -> float:
        """The mean."""
        return fmean(self.errors) if self.errors else math.nan
