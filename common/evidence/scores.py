"""How close results come to HR: our scores, and those of challenges."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..metrics import compute_nrmse, compute_psnr
from ..metrics.challenges import CHALLENGES, Pair, measure_terms, sum_ranks, sum_terms
from ..metrics.lpips import Lpips
from ..metrics.volume import SSIM_REACH, map_ssim
from ..reports.planes import to_ras
from .judgement import Judgement, Part, Rows
from .person import Person
from .segmentation import find_labels
from .volume import Volume


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


def _judge_challenge(person: Person) -> Judgement:
    assert person.hr is not None and person.score is not None
    challenge, hr = CHALLENGES[person.score], person.hr
    given = {"mask": person.region, "lpips": person.lpips}
    for key, option in challenge.needs.items():
        if given[key] is None:
            raise ValueError(f"judge: --score {person.score} needs {option}.")
    mask = None if person.region is None else person.sample_mask(person.region, hr, "--region") > 0.5
    rows: Rows = []
    for method, volume in person.methods.items():
        pair = Pair(
            sr=to_ras(volume.voxels, volume.affine)[0],
            hr=to_ras(hr.voxels, hr.affine)[0],
            mask=None if mask is None else to_ras(mask, hr.affine)[0],
            lpips=_load_lpips(person.lpips) if person.lpips else None,
        )
        if "hr_labels" in {term.needs for term in challenge.terms.values()} and method != "cubic":
            sr_labels, hr_labels = (_read_labels(person.labels, each) for each in (volume, hr))
            pair = pair._replace(sr_labels=sr_labels, hr_labels=hr_labels)
        try:
            values = measure_terms(challenge, pair)
        except ValueError as error:
            raise ValueError(f"judge: --score {person.score}: --hr {hr.name}, {volume.name}: {error}") from None
        row: dict[str, Any] = {"result": volume.label, "method": method, "challenge": person.score}
        rows.append(row | values)
    _add_scores(rows)
    return Judgement(rows)


def _read_labels(labels: str | None, volume: Volume) -> np.ndarray | None:
    """The label map of a volume, where the user names a pattern of files."""
    found = None if labels is None else find_labels(labels, volume)
    return None if found is None else found.labels


def _add_scores(rows: Rows) -> None:
    """Add the score of each line of one challenge. Ranks are among the methods that have most terms."""
    challenge = CHALLENGES[rows[0]["challenge"]]
    if not challenge.is_ranked:
        for row in rows:
            row["score"] = sum_terms(challenge, row)
        return
    terms = {row["method"]: {name: row[name] for name in challenge.terms if name in row} for row in rows}
    most = max(map(len, terms.values()))
    ranks = sum_ranks(challenge, {method: values for method, values in terms.items() if len(values) == most})
    for row in rows:
        row["rank_sum"] = ranks.get(row["method"])


def _finish_means(rows: Rows) -> None:
    """Give the means over persons their scores, for each challenge."""
    means = [row for row in rows if row["person"].startswith("mean")]
    for challenge in dict.fromkeys(row["challenge"] for row in means):
        _add_scores([row for row in means if row["challenge"] == challenge])


SCORES = Part(
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

CHALLENGE = Part(
    name="challenge",
    question="What does the challenge give?",
    columns={
        "challenge": "; ".join(f"{name}: {c.title}, as defined by {c.source}" for name, c in CHALLENGES.items()),
        "SSIM": "ulf-enc: in 3-D, windows of 7 voxels, both volumes min-max scaled and 0 beyond the mask, mean within; "
        "mrixfields: mean of the axial slices that are not constant in HR, windows of 7 pixels, HR's data range",
        "PSNR": "dB, the mean of each voxel's own within the mask",
        "MAE": "mean absolute error within the mask",
        "NMSE": "mean squared error over the mean of HR's squares within the mask, at most 1",
        "nRMSE": "norm of the difference over that of HR",
        "LPIPS": "AlexNet, mean of the axial slices",
        "Dice": "mean of 14 structures of deep grey matter, with --labels of SynthSeg's maps; tasks 1 and 2 only",
        "Volume": "1 less the relative error of their volumes; tasks 1 and 2 only",
        "score": "ulf-enc: 0.7 SSIM + 0.1 PSNR / 32 + 0.1 (1 - MAE) + 0.1 (1 - NMSE); greater is better",
        "rank_sum": "mrixfields: ranks by each metric, 1 for the best, summed, among the methods of this table; "
        "less is better. The challenge ranks you among its teams",
    },
    is_asked=lambda person: person.score is not None,
    judge=_judge_challenge,
    by=("challenge",),
    finish=_finish_means,
)
