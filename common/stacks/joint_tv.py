"""Joint total variation: the contrasts of an exam have their edges in the same places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..runtime.progress import track
from .guide import SlopeForm, compute_slopes, list_slabs
from .least_squares import solve_conjugate_gradients
from .operator import StackOperator

ROUNDS = 8  # how often the root is replaced, by default
_REACHED = 0.01  # of the most coverage; what has less was not reached at all
_HALF = 0.5  # of the usual coverage by slices; where there is less, the start counts too
_ERROR = 0.03  # standard deviation of the start's error there, in units of the mean of tissue
_FLAT = 0.01  # slopes per mm, in units of the mean of tissue: well below, a region is flat


@dataclass(frozen=True)
class MeasuredContrast:
    """What was measured of a contrast.

    Attributes:
        stacks: with the brightness of the volume, and 0 where nothing was measured.
        operators: one for each stack.
        variances: of the noise of each stack.
    """

    stacks: Sequence[torch.Tensor]
    operators: Sequence[StackOperator]
    variances: Sequence[float]

    def compute_right_side(self) -> torch.Tensor:
        """The sum of the stacks, each brought to the volume by its transpose, over their variances."""
        terms = zip(self.stacks, self.operators, self.variances, strict=True)
        return sum(a.adjoint(y) / variance for y, a, variance in terms)  # type: ignore[return-value]

    def apply_normal_operator(self, volume: torch.Tensor) -> torch.Tensor:
        """The sum of the operators, each with its transpose, over the variances, applied to a volume."""
        terms = zip(self.operators, self.variances, strict=True)
        return sum(a.adjoint(a(volume)) / variance for a, variance in terms)  # type: ignore[return-value]

    def find_uncovered(self) -> torch.Tensor:
        """1 in voxels that slices cover less than half as well as usual, such as at the border, else 0."""
        covered = sum(a.adjoint(torch.ones_like(y)) for y, a in zip(self.stacks, self.operators, strict=True))
        reached = covered > _REACHED * covered.max()  # type: ignore[union-attr, operator]
        return (covered < _HALF * covered[reached].median()).to(covered.dtype)  # type: ignore[union-attr, index, operator]


def minimise_joint_tv(
    volumes: Sequence[torch.Tensor],
    measured: Sequence[MeasuredContrast],
    weight: float,
    voxel: float,
    guides: Sequence[torch.Tensor] = (),
    iterations: int = 6,
    rounds: int = ROUNDS,
) -> list[torch.Tensor]:
    r"""Find the volumes of all contrasts at once that agree with their stacks and have few edges, in common places.

    .. math:: \min_{x_1 \dots x_C} \sum_c \sum_k \frac{\lVert y_{ck} - A_{ck} x_c \rVert^2}{2 \sigma_{ck}^2}
        + \frac{\lambda}{s} h^3 \sum_v \sqrt{\epsilon^2 + \sum_c \lVert \nabla x_c(v) / \mu_c \rVert^2}

    :math:`\mu_c` is the mean of tissue, so that units do not count, and :math:`s^2` is the mean of all
    :math:`\sigma_{ck}^2 / \mu_c^2`. So a scan with twice the noise is smoothed twice as much. An edge of one contrast
    costs less where another has one; sign and height are free. With one contrast this is total variation.

    Where no slice was measured, such as at the border of the volume, the start has an error of 0.03 of the mean of
    tissue, and is a measurement too.

    Each round replaces the root by the quadratic form that touches it from above at the present volumes. Then the
    contrasts no longer share a term, and conjugate gradients solve for each. No round raises the sum.

    Args:
        volumes: start of each contrast :math:`x_c`, ``(X, Y, Z)``, all on one grid.
        measured: stacks :math:`y_{ck}`, operators :math:`A_{ck}` and variances :math:`\sigma_{ck}^2` of each.
        weight: :math:`\lambda`, above 0.
        voxel: edge h of a voxel in mm.
        guides: further contrasts on the grid, which are known and stay as they are.
        iterations: of the conjugate gradients in a round.
        rounds: how often the root is replaced.

    Returns:
        The volume of each contrast.

    Source:
        Brudfors et al. 2018; the quadratic form in place of their ADMM.
    """
    volumes, scales = list(volumes), [1 / _average_tissue(volume) for volume in volumes]
    known = sum((_measure_slopes(guide, voxel) / _average_tissue(guide) ** 2 for guide in guides), torch.zeros(()))
    trust = [each.find_uncovered() * (scale / _ERROR) ** 2 for each, scale in zip(measured, scales, strict=True)]
    right = [each.compute_right_side() + part * x for each, part, x in zip(measured, trust, volumes, strict=True)]
    ratios = [scale**2 * one for each, scale in zip(measured, scales, strict=True) for one in each.variances]
    strength = weight / math.sqrt(sum(ratios) / len(ratios))
    for _ in track(range(rounds)):
        slopes = sum(scale**2 * _measure_slopes(x, voxel) for x, scale in zip(volumes, scales, strict=True))
        form = SlopeForm(strength * voxel / (known + slopes + _FLAT**2).sqrt()[None])  # h^3, over h^2 of two slopes
        for c in track(range(len(volumes))):

            def apply_system(x: torch.Tensor, c: int = c, form: SlopeForm = form) -> torch.Tensor:
                total = measured[c].apply_normal_operator(x).addcmul_(trust[c], x)
                return total.add_(form(x), alpha=scales[c] ** 2)

            volumes[c] = solve_conjugate_gradients(apply_system, right[c], volumes[c], iterations)
    return volumes


def _measure_slopes(volume: torch.Tensor, voxel: float) -> torch.Tensor:
    """The squared length of the slope at each voxel, per mm^2."""
    slopes = torch.empty_like(volume)
    for part in list_slabs(volume):
        torch.sum(compute_slopes(volume, part).square_(), dim=0, out=slopes[part])
    return slopes.div_(voxel**2)


def _average_tissue(volume: torch.Tensor) -> float:
    """The mean of the voxels that are brighter than the mean of all."""
    return float(volume[volume > volume.mean()].mean().clamp_min(1e-6))
