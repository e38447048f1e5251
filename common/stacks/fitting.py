"""Fit brightness, slices' motions and slices' weights of registered stacks, before any network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry.registration.stacks import Region
from ..geometry.resampling import scale_voxels
from ..geometry.robust import SIGMA_PER_MAD
from ..geometry.stack import Stack
from ..metrics.verdict import CubicComparison, compare_volumes, cut_middle, measure_widths
from ..runtime.progress import track
from .brightness import BrightnessField, estimate_slice_gains
from .combination import combine_in_k_space
from .least_squares import enforce_data_consistency
from .operator import StackOperator
from .slices import estimate_motions, measure_residuals, weigh_slices

_ROUNDS = 3
_VARIANCE, _ERROR = 0.01**2, 0.1  # of the stacks, and standard deviation of the volume's start
_WORTH = 0.9  # of the mean square residual: a motion that leaves more is not used


@dataclass(frozen=True)
class FittedStack:
    """A stack, and what is known of it.

    Attributes:
        stack: registered.
        slice_motions: (Z, 4, 4) in mm; None if the slices did not move by themselves.
        brightness: relative to the reference; None for the reference.
        gains: of the slices, ``(Z,)``.
        weights: how much the slices count, ``(Z,)``, 0 to 1.
        residuals: of the slices, ``(Z,)``; NaN where unknown.
        error: root mean square difference from what the volume shows; it includes what the other stacks contradict.
    """

    stack: Stack
    slice_motions: np.ndarray | None
    brightness: BrightnessField | None
    gains: torch.Tensor
    weights: torch.Tensor
    residuals: torch.Tensor
    error: float = 0.0

    def correct(self, volume: torch.Tensor) -> torch.Tensor:
        """Give the stack's voxels ``(X, Y, Z)`` the brightness of the reference."""
        volume = volume / self.gains
        return volume if self.brightness is None else volume / self.brightness.evaluate(volume.shape)

    def fill_slices(self, volume: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
        """The voxels, corrected; slices that do not count are those that a volume shows."""
        voxels = self.correct(self.stack.voxels)
        if bool((self.weights > 0).all()):
            return voxels
        return torch.where(self.weights > 0, voxels, self.make_operator(volume.shape, affine).simulate(volume))

    def make_operator(self, size: Sequence[int], affine: np.ndarray) -> StackOperator:
        """The operator from a volume of this size and affine to the stack; its weights are without those of slices."""
        stack = self.stack
        known = stack.voxels.shape, stack.affine, stack.thickness, self.slice_motions, stack.deformation
        operator = StackOperator(size, affine, *known, stack.voxels.device)
        operator.weights *= self.stack.is_measured
        return operator


def reconstruct(
    volume: torch.Tensor,
    affine: np.ndarray,
    fitted: Sequence[FittedStack],
    variances: Sequence[float],
    guides: Sequence[torch.Tensor] = (),
    **options: Any,
) -> torch.Tensor:
    """Make a volume agree with all stacks; see :func:`enforce_data_consistency`.

    Args:
        volume, affine: the start, and its affine in mm.
        fitted: the stacks.
        variances, guides, options: as for :func:`enforce_data_consistency`.
    """
    measured, operators = make_measurements(fitted, volume.shape, affine)
    return enforce_data_consistency(volume, measured, operators, variances, guides=guides, **options)


def make_measurements(
    fitted: Sequence[FittedStack], size: Sequence[int], affine: np.ndarray
) -> tuple[list[torch.Tensor], list[StackOperator]]:
    """The stacks with the brightness of the reference, and their operators; both have the weights of the slices.

    Args:
        fitted: the stacks.
        size, affine: of the volume, in mm.
    """
    operators = [each.make_operator(size, affine) for each in fitted]
    measured = []
    for operator, each in zip(operators, fitted, strict=True):
        operator.weights *= each.weights.sqrt()
        measured.append(each.correct(each.stack.voxels) * operator.weights)
    return measured, operators


def fit_stacks(
    stacks: Sequence[Stack], size: Sequence[int], affine: np.ndarray, region: Region | None = None, moves: bool = True
) -> tuple[list[FittedStack], torch.Tensor]:
    """Fit brightness, motions and weights of stacks, and a volume, in turns.

    Motions are those of the whole stack, of its odd and even slices, or of each slice. Those of slices are used only if
    they lower the mean square residual by a tenth.

    Args:
        stacks: registered. The first has the brightness of the result.
        size, affine: of the volume, in mm, whose voxels are cubes. Coarser is faster.
        region: where alone motions, brightness and weights are fitted.
        moves: false for stacks that are aligned already, so that there are no motions.

    Returns:
        The stacks with what was found, and the volume. One stack alone stays as it is.
    """
    voxel = float(np.linalg.norm(affine[:3, 0]))
    coarse = [_average_pixels(stack, voxel) for stack in stacks]
    device = stacks[0].voxels.device
    fitted = []
    for stack in coarse:
        ones = torch.ones(stack.voxels.shape[2], device=device)
        fitted.append(FittedStack(stack, None, None, ones, ones, torch.full_like(ones, torch.nan)))
    resamplings = [stack.make_resampling(stack.voxels.shape, size, affine) for stack in coarse]
    inside = [resampling.find_inside(device) for resampling in resamplings]
    start = resamplings[0](coarse[0].voxels)
    for i in track(range(_ROUNDS if len(stacks) > 1 else 0)):  # one alone has nothing to be compared with
        if i == 0:
            fitted = [_fit_brightness(each, start, affine, k > 0, region) for k, each in enumerate(fitted)]
        operators = [each.make_operator(size, affine) for each in fitted]
        corrected = []
        for each in fitted:
            resampling = each.stack.make_resampling(each.stack.voxels.shape, size, affine)
            corrected.append(resampling(each.fill_slices(start, affine)))
        profiles = [o.across for o in operators], [o.sigma for o in operators], [0.02] * len(fitted)
        combined = combine_in_k_space(corrected, inside, *profiles)
        start = reconstruct(combined, affine, fitted, [_VARIANCE] * len(fitted), error=_ERROR)
        fitted = [_refit(each, start, affine, k > 0, region, moves and i > 0) for k, each in enumerate(fitted)]
    placed = [  # moved as their coarse versions were
        replace(stack, affine=each.stack.affine @ np.linalg.inv(averaged.affine) @ stack.affine)
        for stack, averaged, each in zip(stacks, coarse, fitted, strict=True)
    ]
    return [replace(each, stack=stack) for each, stack in zip(fitted, placed, strict=True)], start


def _average_pixels(stack: Stack, voxel: float) -> Stack:
    """A stack whose pixels are at least nearly as large as a voxel, by averaging."""
    size = [min(n, round(n * mm / voxel)) for n, mm in zip(stack.voxels.shape[:2], stack.spacing[:2], strict=True)]
    if size == list(stack.voxels.shape[:2]):
        return stack
    scaled = {"size": size, "mode": "bilinear", "antialias": True, "align_corners": False}
    voxels, measured = (
        F.interpolate(v.float().permute(2, 0, 1)[None], **scaled)[0].permute(1, 2, 0)  # type: ignore[arg-type]
        for v in (stack.voxels, stack.is_measured)
    )
    ratios = np.divide(stack.voxels.shape, voxels.shape)
    return replace(stack, voxels=voxels, affine=scale_voxels(stack.affine, ratios), is_measured=measured > 0.99)


def _find_counts(each: FittedStack, operator: StackOperator, region: Region | None) -> torch.Tensor:
    if region is None:
        return operator.weights
    return operator.weights * region.sample(each.stack.voxels.shape, each.stack.affine)


def _fit_brightness(
    each: FittedStack, volume: torch.Tensor, affine: np.ndarray, has_field: bool, region: Region | None
) -> FittedStack:
    """Fit a stack's field and slices' weights to a volume; ``has_field`` is false for the reference."""
    if not has_field:
        return each
    operator = each.make_operator(volume.shape, affine)
    counts, simulated, voxels = _find_counts(each, operator, region), operator(volume), each.stack.voxels
    for _ in range(2):  # again without slices that show something else
        field = BrightnessField(voxels, simulated, counts * each.weights, each.stack.spacing)
        each = replace(each, brightness=field)
        each = replace(each, weights=weigh_slices(measure_residuals(each.correct(voxels), simulated, counts)))
    return each


def _refit(
    each: FittedStack, volume: torch.Tensor, affine: np.ndarray, has_field: bool, region: Region | None, moves: bool
) -> FittedStack:
    """Fit a stack to a volume: first its motions, if it ``moves``, then brightness, gains and weights."""
    operator = each.make_operator(volume.shape, affine)
    if moves:
        averaged = operator.average(volume)
        counts = _find_counts(each, operator, region) * each.weights
        each = _fit_motions(each, averaged, affine, counts, has_field)
        operator = each.make_operator(volume.shape, affine)
    simulated = operator(volume)
    counts = _find_counts(each, operator, region)
    voxels = each.stack.voxels
    missed = each.correct(voxels) - simulated
    scale = missed[counts > 0].abs().median() * SIGMA_PER_MAD * 3 + 1e-9
    robust = counts * each.weights / (1 + (missed / scale).square())
    field = BrightnessField(voxels / each.gains, simulated, robust, each.stack.spacing) if has_field else None
    flat = voxels if field is None else voxels / field.evaluate(voxels.shape)
    gains = estimate_slice_gains(flat, simulated, robust)
    if field is None:  # the brightness of the result is that of the reference, whatever the other stacks show
        gains = gains / gains.median()
    each = replace(each, brightness=field, gains=gains)
    residuals = measure_residuals(each.correct(voxels), simulated, counts)
    weights = weigh_slices(residuals)
    weighed = counts * weights
    missed = each.correct(voxels) - simulated
    error = (weighed * missed.square()).sum() / weighed.sum().clamp_min(1e-12)
    return replace(each, residuals=residuals, weights=weights, error=float(error.sqrt()))


def _fit_motions(
    each: FittedStack, averaged: torch.Tensor, affine: np.ndarray, counts: torch.Tensor, free: bool
) -> FittedStack:
    """Fit a stack's motions to a volume, averaged as its slices are: as a whole if it is ``free``, then of slices."""
    count = len(each.gains)
    corrected = each.correct(each.stack.voxels)

    def fit(affine_now: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, float]:
        return estimate_motions(
            averaged, affine, replace(each.stack, voxels=corrected, affine=affine_now), counts, groups
        )

    place = each.stack.affine
    if free:
        place = fit(place, np.zeros(count, dtype=int))[0][0] @ place
    best = 1.0
    motions: np.ndarray | None = None
    for groups in (np.arange(count) % 2, np.arange(count)):
        found, left = fit(place, groups)
        if left < _WORTH * best:
            best, motions = left, found
    return replace(each, stack=replace(each.stack, affine=place), slice_motions=motions)


def compare_with_stacks(
    volume: torch.Tensor, affine: np.ndarray, fitted: Sequence[FittedStack]
) -> CubicComparison | None:
    """Compare a volume with the interpolation of that stack which explains all stacks best.

    Volume and interpolations are seen through the slices of each stack, where all stacks lie.

    Args:
        volume, affine: with the brightness of the reference, and its affine in mm.
        fitted: the stacks, where they lie on the volume.

    Returns:
        None if there is too little tissue where all stacks lie.
    """
    part, place = cut_middle(volume, affine)
    device = fitted[0].stack.voxels.device
    cubics, inside = [], torch.ones(part.shape, device=device)
    for each in fitted:
        resampling = each.stack.make_resampling(each.stack.voxels.shape, part.shape, place)
        cubics.append(resampling(each.correct(each.stack.voxels)))
        inside *= resampling.find_inside(device)
    scans = []
    for each in fitted:
        operator = each.make_operator(part.shape, place)
        counts = operator.weights * each.weights > 0
        if len(fitted) > 1:
            counts = counts & operator.find_covered(inside)
        seen = [operator.simulate(shown)[counts].cpu() for shown in (part.to(device), *cubics)]
        scans.append((*seen, each.correct(each.stack.voxels)[counts].cpu()))
    errors = [sum(float((views[i] - views[-1]).square().sum()) for views in scans) for i in range(1, len(fitted) + 1)]
    best = int(np.argmin(errors))
    stack = fitted[best].stack
    views = [(each[0], each[best + 1], each[-1]) for each in scans]
    found = compare_volumes(part, cubics[best].cpu(), measure_widths(place, stack.affine), views)
    return found if found is None or len(fitted) == 1 else replace(found, stack=stack.name)
