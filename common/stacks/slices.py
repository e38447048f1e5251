"""Slices of a stack that moved by themselves, or that show something else."""

from __future__ import annotations

import numpy as np
import torch

from ..geometry.rigid import RigidFit, make_rigid_matrix
from ..geometry.robust import SIGMA_PER_MAD
from ..geometry.stack import Stack
from ..runtime.memory import move_to_device

_POINTS = 2_000  # of a slice
_STACK_POINTS = 40_000
TISSUE = 0.05  # of the brightest, above which points are compared
_MODEL = 0.01  # standard deviation of what interpolation misses, which a motion could imitate
_LIKELY = 2.0  # mm and degrees, standard deviation of a slice's motion
_OUTLYING = 3.0  # standard deviations above the median residual, above which a slice counts less
_LEAST = 0.02  # residual that is never odd
_LEFT_OUT = 2.0  # times that limit, above which a slice does not count


def estimate_motions(
    volume: torch.Tensor, affine: np.ndarray, stack: Stack, counts: torch.Tensor, groups: np.ndarray
) -> tuple[np.ndarray, float]:
    """Find the motions of groups of slices of a stack relative to a volume.

    Motions are penalised by a standard deviation of 2 mm and degrees, so a slice that shows little hardly moves.

    Args:
        volume: ``(X, Y, Z)``, averaged as the stack's slices are.
        affine: of the volume, in mm.
        stack: with the brightness of the volume.
        counts: ``(X, Y, Z)``, how much each of the stack's voxels counts.
        groups: ``(Z,)``, the number of the group to which each slice belongs, from 0.

    Returns:
        A matrix (Z, 4, 4) in mm for each slice, to multiply the affine with from the left; and the mean square residual
        that is left, relative to that without motion.
    """
    device, generator = volume.device, torch.Generator().manual_seed(0)
    bright = stack.voxels > TISSUE * torch.quantile(stack.voxels.flatten()[::7], 0.99)
    group = torch.from_numpy(groups)
    number = int(groups.max()) + 1
    most = max(_POINTS, _STACK_POINTS // number)
    voxels = torch.nonzero(bright & (counts > 0)).cpu()
    chosen = [voxels[group[voxels[:, 2]] == i] for i in range(number)]
    chosen = [each[torch.randperm(len(each), generator=generator)[:most]] for each in chosen]
    longest = max(1, max(map(len, chosen)))
    filled = torch.stack([torch.cat([each, each.new_zeros(longest - len(each), 3)]) for each in chosen])
    there = torch.stack([(torch.arange(longest) < len(each)).double() for each in chosen])
    index = tuple(move_to_device(axis, device) for axis in filled.unbind(2))
    points = filled.double() @ torch.from_numpy(stack.affine[:3, :3].T) + torch.from_numpy(stack.affine[:3, 3])
    middles = torch.stack([torch.from_numpy(np.flatnonzero(groups == i)).double().mean() for i in range(number)])
    plane = torch.tensor([(n - 1) / 2 for n in stack.voxels.shape[:2]]).double()
    centres = torch.cat([plane.expand(number, 2), middles[:, None]], dim=1)
    centres = centres @ torch.from_numpy(stack.affine[:3, :3].T) + torch.from_numpy(stack.affine[:3, 3])
    fit = RigidFit(
        volume,
        torch.ones_like(volume),
        affine,
        stack.voxels[index].double(),
        move_to_device(points, device),
        move_to_device(there, device) * counts[index].double(),
        move_to_device(centres, device),
        stack.deformation,
    )
    still = torch.zeros(number, 6, dtype=torch.float64, device=device)
    motions = fit.fit(still, likely=_LIKELY)
    left = float((fit.measure_residual(motions) + _MODEL**2) / (fit.measure_residual(still) + _MODEL**2))
    matrices = [make_rigid_matrix(m, c) for m, c in zip(motions.cpu().numpy(), centres.numpy(), strict=True)]
    return np.stack([matrices[i] for i in groups]), left


def measure_residuals(stack: torch.Tensor, simulated: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The root mean square difference of each slice from what a volume shows, ``(Z,)``.

    It is relative to the brightness of the stack's slices on the mean, so a slice that shows little has a small one.

    Args:
        stack: ``(X, Y, Z)``, with the brightness of the volume.
        simulated: what the volume shows in its voxels.
        counts: how much each voxel counts, 0 to 1. NaN for slices without any.
    """
    total = counts.sum(dim=(0, 1))
    missed = (counts * (stack - simulated).square()).sum(dim=(0, 1))
    power = (counts * simulated.square()).sum() / counts.sum().clamp_min(1e-12)
    return (missed / total / power.clamp_min(1e-12)).sqrt()


def weigh_slices(residuals: torch.Tensor) -> torch.Tensor:
    """How much each slice of a stack counts by its residual, 0 to 1.

    The limit is three standard deviations above the median residual, and at least 0.02 above. A slice beyond counts as
    the squared ratio of the limit to its residual, and beyond twice the limit not at all. A slice without a residual
    counts.

    Args:
        residuals: ``(Z,)``; NaN if unknown.
    """
    known = residuals[~residuals.isnan()]
    if not len(known):
        return torch.ones_like(residuals)
    middle = known.median()
    limit = middle + (_OUTLYING * SIGMA_PER_MAD * (known - middle).abs().median()).clamp_min(_LEAST)
    weights = torch.where(residuals > limit, (limit / residuals).square(), 1.0)
    return torch.where(residuals > _LEFT_OUT * limit, 0.0, weights)
