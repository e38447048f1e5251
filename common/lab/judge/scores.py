"""How close results come to HR."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from ...metrics.lpips import Lpips
from ...metrics.volume import SSIM_REACH, compute_nrmse, compute_psnr, find_score_range, map_ssim, scale_to_range
from ...program.volume import Volume
from .assessment import Assessment, Judgement, Rows
from .person import Person

_UNEQUAL = 0.1  # of a factor, from which on units may differ


@cache
def _load_lpips(weights: str) -> Lpips:
    return Lpips(weights)


class Scores(Assessment):
    """HR, and how close the results and the scan's interpolation come to it."""

    name = "scores"
    question = "How close do the results come to HR?"
    columns: ClassVar[Mapping[str, str]] = {
        "psnr": "peak signal-to-noise ratio of the volume in dB. For all scores, 0 (or HR's minimum below it) is "
        "scaled to 0 and HR's 99.9th percentile 1, in all volumes; the rest is cut off",
        "ssim": "structural similarity in 3-D, Gaussian window of sigma 1.5 voxels; 1 for equal volumes",
        "nrmse": "root mean square error over the root mean square of HR; 0 for equal volumes",
        "lpips": "with --lpips: how different slices along X and Y look to AlexNet; 0 for equal volumes",
        "psnr_masked": "within --region, or else all that is no air",
        "ssim_masked": "the same; windows reach beyond",
        "nrmse_masked": "the same; without --region the verdict's",
        "lpips_masked": "both volumes 0 beyond it",
        "masked": "share of the voxels within it",
        "factor": "by which the result comes closest to HR there; far from 1, the result has other units than the "
        "scan, or without --scan than HR, and the scores say little else",
    }
    asked_by = ("hr", "lpips")

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person, self.lpips = person, given.get("lpips")
        if person.hr is None:
            raise ValueError(f"judge: --lpips {self.lpips} compares with HR; give --hr FILE with it.")
        self.hr = person.hr
        self.region: Volume | None = given.get("region")

    def judge(self) -> Judgement:
        person, hr = self.person, self.hr
        mask, lpips = self._find_mask(), self.lpips and _load_lpips(self.lpips)
        low, high = find_score_range(hr.voxels)
        truth = scale_to_range(hr.voxels, low, high)
        rows: Rows = []
        volumes, inner = person.methods, (slice(SSIM_REACH, -SSIM_REACH),) * 3
        for method, volume in volumes.items():
            sr = scale_to_range(volume.voxels, low, high)
            row: dict[str, Any] = {"result": volume.label, "method": method}
            local = map_ssim(sr, truth) if min(truth.shape) > 2 * SSIM_REACH else np.zeros((0, 0, 0))
            for suffix, within in (("", None), ("_masked", mask)):
                here = local if within is None or not local.size else local[within[inner]]
                row[f"psnr{suffix}"] = compute_psnr(sr, truth, within)
                row[f"ssim{suffix}"] = float(here.mean(dtype=np.float64)) if here.size else float("nan")
                row[f"nrmse{suffix}"] = compute_nrmse(sr, truth, within)
                if lpips:
                    seen = 1 if within is None else within
                    row[f"lpips{suffix}"] = lpips.compute_score(sr * seen, truth * seen)
            own = volume.voxels[mask].astype(np.float64)
            row["factor"] = float(own @ hr.voxels[mask] / (own @ own))
            rows.append(row | {"masked": float(mask.mean())})
            if person.scan is None and abs(row["factor"] - 1) > _UNEQUAL:
                warnings.warn(
                    f"judge: {volume.name} comes closest to --hr {hr.name} by a factor of {row['factor']:.3g}; if HR "
                    "has other units, give --scan, and it is brought to those of the scan.",
                    stacklevel=2,
                )
        return Judgement(rows)

    def _find_mask(self) -> np.ndarray:
        """The region that the user names, or else tissue."""
        if self.region is not None:
            return self.region.sample_mask(self.hr, "--region") > 0
        return self.person.tissue
