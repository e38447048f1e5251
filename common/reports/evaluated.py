"""The metrics of every evaluation: each is a column of its table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..metrics.metric import Metric
from ..metrics.mscn import select_slices
from ..metrics.units import match_units
from ..metrics.volume import (
    compute_psnr,
    compute_slices_psnr,
    compute_slices_ssim,
    compute_ssim,
    measure_displacement,
    scale_to_range,
    shift_volume,
)
from ..transforms.scan.volume import (
    NormaliseVolumed,
    attach_meta,
    convert_to_units,
    get_intensity_range,
    get_white_level,
)

_ACCURACY = 0.03  # voxels, of a measured shift


class EvaluatedCase:
    """The volumes of a case on the scales of its metrics.

    Args:
        volumes: by method, ``(1, X, Y, Z)`` and scaled like the scan; among them "cubic".
        lr, hr: the scan and the truth, ``(1, X, Y, Z)``.
        factors: HR voxels per LR voxel along X, Y and Z.
        data_range, score_over: as for :class:`common.handlers.EvaluationReport`.

    Attributes:
        volumes, truth: results and HR, ``(X, Y, Z)`` in [0, 1].
        shifts: of each result against cubic interpolation, in voxels along X, Y and Z.
    """

    def __init__(
        self,
        volumes: Mapping[str, Any],
        lr: MetaTensor,
        hr: MetaTensor,
        factors: Sequence[int],
        data_range: str = "percentile",
        score_over: str = "volume",
    ) -> None:
        self.unscaled, self.lr, self.hr, self.factors = volumes, lr, hr, factors
        self.volumes = {method: clip_volume(volume, lr, hr) for method, volume in volumes.items()}
        self._scored, self.truth = self.volumes, clip_volume(hr, hr, hr)
        self._scored_truth = self.truth
        self.shifts = {m: measure_displacement(v, self.volumes["cubic"], factors) for m, v in self.volumes.items()}
        self._measure_psnr: Callable[..., float] = compute_psnr
        self._measure_ssim: Callable[..., float] = compute_ssim
        if score_over != "volume":
            slices = [self.truth.shape[-1] // 2] if score_over == "centre_slice" else select_slices(self.truth)
            self._measure_psnr = partial(compute_slices_psnr, slices=slices)
            self._measure_ssim = partial(compute_slices_ssim, slices=slices)
        self._scale: Callable[..., np.ndarray] = partial(clip_volume, scan=lr, hr=hr)
        if data_range == "maximum":
            truth = convert_to_units(hr, hr)
            peak, floor = truth.max(), convert_to_units(lr, lr).min()
            if peak <= 0:
                raise ValueError(f"HR has no voxel above 0 but at most {peak:g}, so data_range maximum has no scale.")
            self._scored_truth = truth / peak
            self._scale = lambda volume: convert_to_units(volume, lr).clip(floor) / peak
            self._scored = {method: self._scale(volume) for method, volume in volumes.items()}

    @torch.no_grad()
    def measure(self, metric: Metric, method: str, device: torch.device) -> float:
        """The value of a metric for a method's result, computed on a device; NaN and a warning if it refuses it."""
        assert metric.function is not None
        if isinstance(metric, _CaseMetric):
            return metric.function(self, method)
        pair = (torch.as_tensor(volume)[None, None].to(device) for volume in (self.volumes[method], self.truth))
        try:
            return float(torch.as_tensor(metric.function(*pair), device="cpu", dtype=torch.float64).mean())
        except ValueError as error:
            size = " x ".join(map(str, self.truth.shape))
            text = f"the metric {metric.title} is left out for volumes of {size} voxels: {str(error).rstrip('.')}."
            warnings.warn(text, stacklevel=2)
            return math.nan
        except Exception as error:
            raise ValueError(f"the metric {metric.title} fails: {str(error).rstrip('.')}.") from error

    def compute_psnr(self, method: str) -> float:
        """PSNR in dB, as ``data_range`` and ``score_over`` say."""
        return self._measure_psnr(self._scored[method], self._scored_truth)

    def compute_ssim(self, method: str) -> float:
        """SSIM, likewise."""
        return self._measure_ssim(self._scored[method], self._scored_truth)

    def compute_registered_psnr(self, method: str) -> float:
        """PSNR after a shift against HR is taken out; NaN for a result without structure."""
        if any(map(math.isnan, self.shifts[method])):
            return math.nan
        shift = self._measure_shift(self.unscaled[method]) if any(self.shifts[method]) else [0.0]
        if not any(shift):
            return self.compute_psnr(method)
        back = shift_volume(self.unscaled[method], [-voxels for voxels in shift])
        return self._measure_psnr(self._scale(back[None]), self._scored_truth)

    def _measure_shift(self, volume: Any) -> list[float]:
        """A volume's shift against HR in voxels, 0 along axes where it is too small to be measured."""
        shift = np.zeros(3)
        for _ in range(2):  # the second time, the anatomy is not cut off by the window any more
            back = clip_volume(shift_volume(volume, (-shift).tolist())[None], self.lr, self.hr)
            shift += measure_displacement(back, self.truth, self.factors)
        return [0.0 if abs(voxels) < _ACCURACY else voxels for voxels in shift.tolist()]


def match_hr(hr: MetaTensor, lr: MetaTensor) -> MetaTensor:
    """HR ``(1, X, Y, Z)`` in the units of an LR file, see :func:`common.metrics.units.match_units`.

    Args:
        hr, lr: normalised.
    """
    file = str(hr.meta["filename_or_obj"])
    if str(lr.meta.get("filename_or_obj", file)) == file:  # LR was made of HR
        return hr
    volumes = convert_to_units(hr, hr), hr.affine.numpy(), convert_to_units(lr, lr), lr.affine.numpy()
    values, difference = match_units(*volumes, f"HR {file}")
    if difference is None:
        return hr
    warnings.warn(f"HR {file}: {difference}; it was brought to the units of LR.", stacklevel=2)
    return NormaliseVolumed("hr")({"hr": attach_meta(torch.from_numpy(values)[None], hr.affine, hr.meta)})["hr"]


class _CaseMetric(Metric):
    """A metric whose function takes an evaluated case and a method."""


METRICS: dict[str, Metric] = {
    "psnr": _CaseMetric(EvaluatedCase.compute_psnr, "PSNR (dB)", 2),
    "ssim": _CaseMetric(EvaluatedCase.compute_ssim, "SSIM"),
    **{
        f"displacement_{axis}": _CaseMetric(
            lambda case, method, i=i: case.shifts[method][i], f"shift {axis} (voxel)", 2, is_printed=False
        )
        for i, axis in enumerate("xyz")
    },
    "psnr_registered": _CaseMetric(EvaluatedCase.compute_registered_psnr, "registered PSNR (dB)", 2, is_printed=False),
}
"""The columns of every table, by name."""


def clip_volume(volume: torch.Tensor | np.ndarray, scan: MetaTensor, hr: MetaTensor) -> np.ndarray:
    """A volume ``(1, X, Y, Z)`` that is scaled like a scan, as an array ``(X, Y, Z)`` in units of HR, cut to [0, 1]."""
    (low, high), (zero, one) = get_intensity_range(scan), get_intensity_range(hr)
    first = (zero - low) / (high - low)
    last = first + get_white_level(hr) * ((one - zero) / (high - low))
    return scale_to_range(torch.as_tensor(volume)[0].detach().float().cpu(), first, last).numpy()
