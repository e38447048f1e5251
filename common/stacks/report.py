"""What is said of the stacks of an exam: each of their slices, and by how much a volume misses them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics.verdict import CubicComparison
from ..physics.noise import estimate_noise_in_slices
from ..runtime.errors import Notice
from .fitting import FittedStack

_MUCH = 1.3  # times the median of the slices' residuals
# Beyond noise, stacks of a head at rest were missed by 0 % of tissue brightness, of a prostate by 13 to 16 %, of a
# fetus by 9 to 13 %, and one whose odd slices turned by 6 degrees by 11 %.
_FAR, _LEAST = 1.5, 0.1  # times the noise, and share of tissue brightness beyond it, of a misfit that is warned of
_LESS = 0.5  # weight below which a slice is warned of


def report_misfits(comparison: CubicComparison, fitted: Sequence[FittedStack]) -> dict[str, dict[str, float]]:
    """Report by how much a volume misses each of its stacks, and the noise of each; a notice says both.

    It is a warning if a misfit is above 1.5 times the noise, and above a tenth of tissue brightness without noise.

    Args:
        comparison: of the volume with its stacks.
        fitted: the stacks, in the same order.

    Returns:
        For each stack ``Misfit`` and ``Noise``, as shares of tissue brightness.
    """
    report, said, far = {}, [], []
    for each, misfit in zip(fitted, comparison.misfits, strict=True):
        noise = estimate_noise_in_slices(each.stack.voxels) / comparison.brightness
        report[each.stack.name] = {"Misfit": round(misfit, 4), "Noise": round(noise, 4)}
        odd = np.flatnonzero((each.residuals > _MUCH * each.residuals.nanmedian()).cpu().numpy()).tolist()
        where = f", most in slice{'s' * (len(odd) > 1)} {format_ranges(odd)}" if odd else ", alike in all slices"
        where = where if misfit > noise else ""
        said.append(f"{each.stack.name} {misfit:.1%} (noise {noise:.1%}{where})")
        if misfit > _FAR * noise and misfit**2 - noise**2 > _LEAST**2:
            far.append(each.stack.name)
    text = f"misses its stacks by {', '.join(said)} of tissue brightness"
    if far:
        text += f"; far above the noise of {', '.join(far)}: motion, another contrast, or a wrong slice thickness"
    warnings.warn(f"{text}.", UserWarning if far else Notice, stacklevel=2)
    return report


def format_ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers in words, such as "0 to 3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def report_slices(each: FittedStack) -> dict[str, Any]:
    """Report a stack's brightness and slices; warn of slices that do not fit.

    Returns:
        ``Slices`` with a residual, weight and gain of each, and its motion in mm if it moved by itself; ``Brightness``.
    """
    name, weights, residuals = each.stack.name, each.weights.tolist(), each.residuals.tolist()
    report: dict[str, Any] = {} if each.brightness is None else {"Brightness": round(each.brightness.mean, 4)}
    report["Slices"] = {
        "Residual": [None if math.isnan(r) else round(r, 4) for r in residuals],
        "Weight": [round(w, 3) for w in weights],
        "Gain": [round(g, 3) for g in each.gains.tolist()],
    }
    if each.slice_motions is not None:
        centres = each.stack.affine @ np.stack(
            [[*(np.array(each.stack.voxels.shape[:2]) - 1) / 2, i, 1] for i in range(len(weights))], axis=1
        )
        moved = np.einsum("zij,jz->zi", each.slice_motions, centres) - centres.T
        report["Slices"]["Moved"] = np.round(np.linalg.norm(moved[:, :3], axis=1), 2).tolist()
    odd = [
        f"{i} ({residual:.2f})"
        for i, (residual, weight) in enumerate(zip(residuals, weights, strict=True))
        if weight == 0
    ]
    less = [f"{i} ({weight:.2f})" for i, weight in enumerate(weights) if 0 < weight < _LESS]
    if less:
        warnings.warn(f"{name}: slices that count less, counted from 0: {', '.join(less)}.", Notice, stacklevel=2)
    if odd:
        limit = max((r for r, w in zip(residuals, weights, strict=True) if w > 0 and not math.isnan(r)), default=0)
        warnings.warn(
            f"{name}: slices left out, counted from 0, with residuals: {', '.join(odd)}; the others have at most "
            f"{limit:.2f}.",
            stacklevel=2,
        )
    return report
