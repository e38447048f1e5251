"""How close results come to HR."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..metrics.lpips import Lpips
from ..metrics.volume import SSIM_REACH, compute_nrmse, compute_psnr, map_ssim
from .judgement import Judgement, Question, Rows
from .person import Person


@cache
def _load_lpips(weights: str) -> Lpips:
    return Lpips(weights)


def _find_mask(person: Person) -> np.ndarray:
    """The region that the user names, or else all regions but air."""
    assert person.hr is not None
    if person.region is not None:
        return person.sample_mask(person.region, person.hr, "--region") > 0
    return person.tissue


def _judge_scores(person: Person) -> Judgement:
    assert person.hr is not None
    mask, lpips = _find_mask(person), _load_lpips(person.lpips) if person.lpips else None
    low, high = min(float(person.hr.voxels.min()), 0.0), float(np.quantile(person.hr.voxels, 0.999))
    if high <= low:
        high = float(person.hr.voxels.max())
    hr = ((person.hr.voxels - low) / (high - low)).clip(0, 1)
    rows: Rows = []
    volumes, inner = person.methods, (slice(SSIM_REACH, -SSIM_REACH),) * 3
    for method, volume in volumes.items():
        sr = ((volume.voxels - low) / (high - low)).clip(0, 1)
        row: dict[str, Any] = {"result": volume.label, "method": method}
        local = map_ssim(sr, hr) if min(hr.shape) > 2 * SSIM_REACH else np.zeros((0, 0, 0))
        for suffix, within in (("", None), ("_masked", mask)):
            here = local if within is None or not local.size else local[within[inner]]
            row[f"psnr{suffix}"] = compute_psnr(sr, hr, within)
            row[f"ssim{suffix}"] = float(here.mean(dtype=np.float64)) if here.size else float("nan")
            row[f"nrmse{suffix}"] = compute_nrmse(sr, hr, within)
            if lpips is not None:
                seen = 1 if within is None else within
                row[f"lpips{suffix}"] = lpips.compute_score(sr * seen, hr * seen)
        own = volume.voxels[mask].astype(np.float64)
        row["gain"] = float(own @ person.hr.voxels[mask] / (own @ own))
        rows.append(row | {"masked": float(mask.mean())})
    return Judgement(rows)


SCORES = Question(
    name="scores",
    question="How close do the results come to HR?",
    columns={
        "psnr": "peak signal-to-noise ratio of the volume in dB. For all scores, 0 (or HR's minimum below it) is "
        "scaled to 0 and HR's 99.9th percentile 1, in all volumes; the rest is cut off",
        "ssim": "structural similarity in 3-D, Gaussian window of sigma 1.5 voxels; 1 for equal volumes",
        "nrmse": "root of the squared errors' sum over that of HR's squares; 0 for equal volumes",
        "lpips": "with --lpips: how different slices along X and Y look to AlexNet; 0 for equal volumes",
        "psnr_masked": "within --region, or else all that is no air",
        "ssim_masked": "the same; windows reach beyond",
        "nrmse_masked": "the same",
        "lpips_masked": "both volumes 0 beyond it",
        "masked": "share of the voxels within it",
        "gain": "the factor by which the result comes closest to HR there; far from 1, their units differ, and the "
        "scores say little else",
    },
    is_asked=lambda person: person.hr is not None,
    judge=_judge_scores,
)
