"""How well volumes predict a stack that was left out, through the stack's own slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..geometry.registration.stacks import Region, Registration, register_stacks
from ..geometry.stack import Stack
from .brightness import BrightnessField
from .operator import StackOperator
from .slices import estimate_motions

_FEWEST = 100  # points that a correlation needs
_MOST_CORRELATED = 2 / 3  # most correlation of neighbouring slices: few slices do not tell a higher one from a trend
_PEAK = 0.999  # quantile of the stack that is the peak of the PSNR


@dataclass(frozen=True)
class SeenVolume:
    """A volume as the slices of a stack see it.

    Attributes:
        registration: of the volume onto the stack, before the last fit.
        motion: (4, 4) in mm, of the stack onto the volume.
        shift: of the middle of what is compared, in mm.
        turn: in degrees.
        simulated: ``(X, Y, Z)``, what the stack's voxels show of the volume, in the volume's brightness.
        covered: ``(X, Y, Z)``, which of the stack's voxels lie in the volume's data over the whole slice profile.
    """

    registration: Registration
    motion: np.ndarray
    shift: float
    turn: float
    simulated: torch.Tensor
    covered: torch.Tensor


@dataclass(frozen=True)
class Prediction:
    """How well a volume predicts a stack.

    Attributes:
        voxels: ``(X, Y, Z)``, predicted, in the brightness of the stack.
        correlation: over all that is compared.
        psnr: in dB; the peak is the 99.9th percentile of the stack.
        slices: the correlation in each slice, ``(Z,)``; NaN for fewer than 100 voxels.
    """

    voxels: torch.Tensor
    correlation: float
    psnr: float
    slices: np.ndarray


class LeftOutStack:
    """A stack with which volumes are compared, each with a rigid motion and a brightness field of its own.

    Args:
        stack: that no volume knows.
        region: mask ``(X, Y, Z)`` of what is compared; None for all that was measured.

    Attributes:
        counted: mask ``(X, Y, Z)`` of what is compared if all volumes have data there.
    """

    def __init__(self, stack: Stack, region: torch.Tensor | None = None) -> None:
        self.stack = stack
        self.counted = stack.is_measured if region is None else stack.is_measured & region
        self.region = None if region is None else Region(region.float(), stack.affine)

    def see(self, volume: Stack) -> SeenVolume:
        """Find where the stack lies on a volume, and what its slices show of it.

        First the two are registered as the stacks of an exam, from 13 starts. Then brightness and motion are fitted to
        the volume as the slices see it.
        """
        found = register_stacks(self.stack, volume, self.region, is_rigid=True)
        motion = np.linalg.inv(found.matrix)
        simulated, covered, averaged = self._sample(volume, motion)
        if covered.any():
            flat = self.stack.voxels / self._fit_brightness(simulated, covered)
            moved = replace(self.stack, voxels=flat, affine=motion @ self.stack.affine)
            whole = np.zeros(moved.voxels.shape[2], dtype=int)
            motion = estimate_motions(averaged, volume.affine, moved, covered.float(), whole)[0][0] @ motion
            simulated, covered, _ = self._sample(volume, motion)
        middle = apply_affine(self.stack.affine, torch.nonzero(self.counted).double().mean(0).cpu().numpy())
        shift = float(np.linalg.norm(apply_affine(motion, middle) - middle))
        turn = float(np.degrees(Rotation.from_matrix(motion[:3, :3]).magnitude()))
        return SeenVolume(found, motion, shift, turn, simulated, covered)

    def see_alike(self, volumes: Sequence[Stack], seen: Sequence[SeenVolume]) -> list[SeenVolume]:
        """What the slices show of volumes on one grid, all by the motion of the one that predicts the stack best.

        Args:
            volumes: of one scan, by several methods.
            seen: each from :meth:`see`.
        """
        predictions, _ = self.compare(seen)
        best = seen[int(np.argmax([each.correlation for each in predictions]))]
        views = []
        for volume in volumes:
            simulated, covered, _ = self._sample(volume, best.motion)
            views.append(replace(best, simulated=simulated, covered=covered))
        return views

    def compare(self, seen: Sequence[SeenVolume]) -> tuple[list[Prediction], torch.Tensor]:
        """Compare volumes with the stack where all have data.

        Returns:
            The predictions in the same order, and the mask ``(X, Y, Z)`` of what was compared.
        """
        common = torch.stack([each.covered for each in seen]).all(0)
        truth, predictions = self.stack.voxels, []
        for each in seen:
            shown = each.simulated * self._fit_brightness(each.simulated, common)
            error = float((shown - truth)[common].square().mean())
            peak = float(np.quantile(truth[common].cpu().numpy(), _PEAK))
            slices = [_correlate(*(v[..., k][common[..., k]] for v in (shown, truth))) for k in range(truth.shape[2])]
            correlation = _correlate(shown[common], truth[common])
            psnr = 10 * math.log10(peak**2 / error) if error else math.inf
            predictions.append(Prediction(shown, correlation, psnr, np.array(slices)))
        return predictions, common

    def _sample(self, volume: Stack, motion: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the slices show of a volume, where it has data, and its average over the slice profile."""
        stack, there = self.stack, volume.is_measured
        operator = StackOperator(
            tuple(volume.voxels.shape),
            volume.affine,
            tuple(stack.voxels.shape),
            motion @ stack.affine,
            stack.thickness,
            device=stack.voxels.device,
        )
        covered = (operator.weights > 0) & self.counted
        if not there.all():
            covered = covered & operator.find_covered(there)
        return operator.simulate(volume.voxels), covered, operator.average(volume.voxels)

    def _fit_brightness(self, simulated: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """The stack's brightness relative to what its slices show of a volume."""
        field = BrightnessField(self.stack.voxels, simulated, counted.float(), self.stack.spacing)
        return field.evaluate(self.stack.voxels.shape)


def find_data(voxels: np.ndarray) -> np.ndarray:
    """Which voxels ``(X, Y, Z)`` have data: all but those of exactly 0 that are connected with the border."""
    parts, _ = ndimage.label(np.pad(voxels == 0, 1, constant_values=True))
    return parts[1:-1, 1:-1, 1:-1] != parts[0, 0, 0]


def estimate_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The mean of differences in neighbouring slices, and its 95 % confidence interval.

    Neighbouring slices are alike, so n slices count as :math:`n (1 - r) / (1 + r)`; r is the correlation of
    neighbours, 0 to 2/3.

    Args:
        differences: in the order of the slices; NaN is left out. Fewer than three have no interval (NaN).
    """
    from scipy import stats  # here, because it takes long to load, and inference needs none

    known = differences[~np.isnan(differences)]
    mean = float(known.mean()) if len(known) else math.nan
    centred = known - mean
    power = float((centred**2).sum())
    if len(known) < 3 or power == 0:
        return mean, math.nan, math.nan
    alike = min(_MOST_CORRELATED, max(0.0, float((centred[1:] * centred[:-1]).sum()) / power))
    count = max(2.0, len(known) * (1 - alike) / (1 + alike))
    half = float(stats.t.ppf(0.975, count - 1)) * math.sqrt(power / (len(known) - 1) / count)
    return mean, mean - half, mean + half


def _correlate(first: torch.Tensor, second: torch.Tensor) -> float:
    """Pearson's correlation; NaN for fewer than 100 points, or if one is constant."""
    if len(first) < _FEWEST:
        return math.nan
    return float(torch.corrcoef(torch.stack([first, second]).double())[0, 1])
