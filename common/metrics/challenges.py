"""Scores of challenges by their own definitions, so that a user knows what a result would get there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.metrics import structural_similarity

from .lpips import Lpips
from .volume import compute_nrmse


class Pair(NamedTuple):
    """A result and HR on one grid, as a challenge compares them.

    Attributes:
        sr, hr: ``(X, Y, Z)``, axes in the directions R, A, S.
        mask: of what counts, bool.
        lpips: the network of LPIPS.
        sr_labels, hr_labels: label maps of SynthSeg, on one grid of their own.
    """

    sr: np.ndarray
    hr: np.ndarray
    mask: np.ndarray | None = None
    lpips: Lpips | None = None
    sr_labels: np.ndarray | None = None
    hr_labels: np.ndarray | None = None


class Term(NamedTuple):
    """A metric of a challenge: its weight in the sum, negative where less is better, and how it is measured."""

    weight: float
    measure: Callable[[Pair], float]
    needs: str | None = None  # the attribute of Pair without which it is left out


@dataclass(frozen=True)
class Challenge:
    """How a challenge scores a volume.

    Attributes:
        title: its full name.
        source: where its definition is.
        needs: attributes of :class:`Pair` that all its scores need, by the option that gives them.
        scale: turns the voxels of a pair into what is compared.
        terms: metrics by name.
        constant: added to the sum.
        is_ranked: whether ranks of the methods are summed in place of values. Less is then better.
    """

    title: str
    source: str
    needs: Mapping[str, str]
    scale: Callable[[Pair], Pair]
    terms: Mapping[str, Term]
    constant: float = 0.0
    is_ranked: bool = False


def measure_terms(challenge: Challenge, pair: Pair) -> dict[str, float]:
    """Measure all terms of a challenge for which the pair has what they need.

    Args:
        challenge: of :data:`CHALLENGES`.
        pair: in the units of their files.

    Raises:
        ValueError: when the challenge does not take such volumes.
    """
    sr, hr = (np.ascontiguousarray(volume, dtype=np.float64) for volume in (pair.sr, pair.hr))
    pair = challenge.scale(pair._replace(sr=sr, hr=hr))
    return {
        name: term.measure(pair)
        for name, term in challenge.terms.items()
        if term.needs is None or getattr(pair, term.needs) is not None
    }


def sum_terms(challenge: Challenge, values: Mapping[str, float]) -> float:
    """The score of a challenge that sums values; also of means over people, because it is linear."""
    return challenge.constant + sum(term.weight * values[name] for name, term in challenge.terms.items())


def sum_ranks(challenge: Challenge, methods: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Rank methods by each term, 1 for the best, and sum their ranks; equal values share their mean rank.

    Args:
        challenge: that sums ranks.
        methods: values of the terms of each method, all of the same terms.
    """
    from scipy.stats import rankdata  # here, because it loads slowly

    total = np.zeros(len(methods))
    for name in next(iter(methods.values()), {}):
        total += rankdata([-np.sign(challenge.terms[name].weight) * values[name] for values in methods.values()])
    return dict(zip(methods, total.tolist(), strict=True))


def _scale_each_to_its_range(pair: Pair) -> Pair:
    return pair._replace(**{key: (v - v.min()) / np.ptp(v) for key, v in (("sr", pair.sr), ("hr", pair.hr))})


def _keep_unit_range(pair: Pair) -> Pair:
    low, high = float(pair.hr.min()), float(pair.hr.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"HR has values from {low:.4g} to {high:.4g}, expected 0 to 1 as the challenge gives them; divide HR and "
            "the results by one number."
        )
    return pair


def _average_in_mask(local: np.ndarray, pair: Pair) -> float:
    return float(local[pair.mask].mean())


def _measure_masked_ssim(pair: Pair) -> float:
    """SSIM of both with all beyond the mask at 0, windows of 7 voxels, mean within the mask."""
    maps = structural_similarity(pair.sr * pair.mask, pair.hr * pair.mask, data_range=1.0, full=True)
    return _average_in_mask(maps[1], pair)


def _measure_local_psnr(pair: Pair) -> float:
    """The mean of the PSNR of each voxel, which 1e-8 keeps below 80 dB."""
    return _average_in_mask(-10 * np.log10((pair.sr - pair.hr) ** 2 + 1e-8), pair)


def _measure_nmse(pair: Pair) -> float:
    return min(_average_in_mask((pair.sr - pair.hr) ** 2, pair) / _average_in_mask(pair.hr**2, pair), 1.0)


def _measure_axial_ssim(pair: Pair) -> float:
    """Mean SSIM of axial slices that are not constant in HR, windows of 7 pixels, data range of the volume."""
    data_range = float(np.ptp(pair.hr))
    values = [
        structural_similarity(pair.sr[..., z], pair.hr[..., z], data_range=data_range)
        for z in range(pair.hr.shape[2])
        if np.ptp(pair.hr[..., z]) >= 1e-10
    ]
    return float(np.mean(values))


def _measure_axial_lpips(pair: Pair) -> float:
    assert pair.lpips is not None
    return pair.lpips.compute_score(pair.sr, pair.hr, axes=(2,))


def _count_structures(pair: Pair) -> np.ndarray:
    """Voxels of each of the 14 structures in the result, in HR and in both, shape (14, 3)."""
    assert pair.sr_labels is not None and pair.hr_labels is not None
    pairs = [(pair.sr_labels == label, pair.hr_labels == label) for label in _DEEP_GREY]
    return np.array([[sr.sum(), hr.sum(), (sr & hr).sum()] for sr, hr in pairs], dtype=float)


def _measure_dice(pair: Pair) -> float:
    """The mean over structures; 1 for one that neither has."""
    return float(np.mean([2 * both / (sr + hr) if sr + hr else 1.0 for sr, hr, both in _count_structures(pair)]))


def _measure_volume_consistency(pair: Pair) -> float:
    """The mean over structures of 1 less the relative error of the volume; 1 for one that neither has."""
    counts = _count_structures(pair)
    return float(np.mean([1 - abs(sr - hr) / hr if hr else float(not sr) for sr, hr, _ in counts]))


# Thalamus, caudate, putamen, pallidum, hippocampus, amygdala and accumbens, left and right, as FreeSurfer numbers them.
_DEEP_GREY = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)

CHALLENGES: dict[str, Challenge] = {
    "ulf-enc": Challenge(
        title="Ultra-Low-Field MRI Image Enhancement Challenge, MICCAI 2025",
        source="github.com/khtohidulislam/ULF-EnC-Challenge, final_evaluation_script.py, September 2025",
        needs={"mask": "--region MASK, the mask of the person's T1 scan that the challenge gives"},
        scale=_scale_each_to_its_range,
        terms={
            "SSIM": Term(0.7, _measure_masked_ssim),
            "PSNR": Term(0.1 / 32, _measure_local_psnr),
            "MAE": Term(-0.1, lambda pair: _average_in_mask(abs(pair.sr - pair.hr), pair)),
            "NMSE": Term(-0.1, _measure_nmse),
        },
        constant=0.2,  # of 0.1 (1 - MAE) and 0.1 (1 - NMSE)
    ),
    "mrixfields": Challenge(
        title="MRIxFields 2026, MICCAI 2026",
        source="github.com/MRIxFields/MRIxFields2026, Evaluation/evaluate.py, May 2026",
        needs={"lpips": "--lpips FILE, AlexNet's weights as torchvision publishes them (alexnet-owt-7be5be79.pth)"},
        scale=_keep_unit_range,
        terms={
            "nRMSE": Term(-1, lambda pair: compute_nrmse(pair.sr, pair.hr)),
            "SSIM": Term(1, _measure_axial_ssim),
            "LPIPS": Term(-1, _measure_axial_lpips),
            "Dice": Term(1, _measure_dice, "hr_labels"),
            "Volume": Term(1, _measure_volume_consistency, "hr_labels"),
        },
        is_ranked=True,
    ),
}
"""Challenges by the name that a user gives."""
