"""Rigid motions: their matrices, the grid half way, and their fit to points of a volume by least squares."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from scipy.spatial.transform import Rotation

from ..runtime.memory import move_to_device
from .resampling import sample_linear
from .robust import estimate_sigma, weigh_by_residual

_STEPS = 20
_LONGEST = 4.0  # mm and degrees in one step
_SMALL = 0.01  # mm and degrees: the fit stops after a smaller step
_FEWEST = 50  # points that a fit needs


def make_rigid_matrix(motion: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The matrix (4, 4) of a motion: a translation in mm, and a rotation vector about a centre in degrees."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(motion[3:], degrees=True).as_matrix()
    matrix[:3, 3] = centre + motion[:3] - matrix[:3, :3] @ centre
    return matrix


def find_half_way(
    first: np.ndarray, second: np.ndarray, size: Sequence[int], motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Find the places of a grid's voxels in two volumes.

    The matrix :math:`T = N T'` leads from voxels of the second volume to those of the first; N is a shift by whole
    voxels. The grid has the second's size. Its voxels lie at :math:`N T'^{1/2}` in the first and at
    :math:`T'^{-1/2}` in the second: moved by half the motion each, in opposite directions.

    Args:
        first, second: affines of the volumes in mm, with axes in the same order and directions.
        size: of the second volume ``(X, Y, Z)``.
        motion: (4, 4) in mm, of the second volume onto the first.

    Returns:
        Matrices (4, 4) from voxels of the grid to voxels of the first volume and of the second.
    """
    turned = np.linalg.inv(first) @ motion @ second
    middle = np.array([*(np.asarray(size) - 1) / 2, 1.0])
    whole = np.eye(4)
    whole[:3, 3] = np.rint((turned @ middle - middle)[:3])
    half = np.real(sqrtm(np.linalg.inv(whole) @ turned))
    return whole @ half, np.linalg.inv(half)


class RigidFit:
    """Fits the motions of groups of points to a volume, each with a gain of its own.

    Args:
        volume: ``(X, Y, Z)``.
        weights: ``(X, Y, Z)``, how much a place of the volume counts, 0 to 1.
        affine: of the volume, in mm.
        values: of the points, ``(G, N)`` for G groups.
        points: ``(G, N, 3)`` in mm.
        counts: ``(G, N)``, how much each point counts; 0 for points that only fill up a group.
        centres: of rotation, ``(G, 3)`` in mm.
        deformation: of the points, after the motion.
    """

    def __init__(
        self,
        volume: torch.Tensor,
        weights: torch.Tensor,
        affine: np.ndarray,
        values: torch.Tensor,
        points: torch.Tensor,
        counts: torch.Tensor,
        centres: torch.Tensor,
        deformation: Any = None,
    ) -> None:
        self.channels = torch.stack([volume, *torch.gradient(volume), weights])
        device = volume.device
        self.affine = affine
        self.into = move_to_device(torch.from_numpy(np.linalg.inv(affine)), device)
        self.last = move_to_device(torch.tensor(volume.shape) - 1, device)
        self.values, self.counts, self.centres = values, counts, centres
        self.deformation = deformation
        self.arms = points - centres[:, None]

    def fit(self, motions: torch.Tensor, likely: float = math.inf) -> torch.Tensor:
        """Fit motions ``(G, 6)`` in mm and degrees, from given ones.

        ``likely`` is the standard deviation of a motion; larger motions are penalised. Groups with fewer than 50 points
        stay.
        """
        for _ in range(_STEPS):
            shown, slopes, counts, _ = self._sample(motions)
            gain = (counts * shown * self.values).sum(1) / (counts * shown * shown).sum(1).clamp_min(1e-12)
            missed = self.values - gain[:, None] * shown
            scale = estimate_sigma(missed, counts)
            robust = weigh_by_residual(counts, missed, scale)
            slopes = torch.cat([gain[:, None, None] * slopes, shown[..., None]], dim=2)
            normal = torch.einsum("gni,gn,gnj->gij", slopes, robust, slopes)
            right = torch.einsum("gni,gn,gn->gi", slopes, robust, missed)
            stiff = torch.zeros_like(right)
            stiff[:, :6] = (scale / likely).square()
            right[:, :6] -= stiff[:, :6] * motions
            size = normal.diagonal(dim1=1, dim2=2)
            normal = normal + torch.diag_embed(stiff + 1e-7 * size.mean(1, keepdim=True) + 1e-12)
            step = torch.linalg.solve(normal, right)[:, :6]
            step = step * (_LONGEST / step.abs().amax(1, keepdim=True).clamp_min(_LONGEST))
            step = step * (counts.sum(1) >= _FEWEST)[:, None]
            motions = motions + step
            if float(step.abs().max()) < _SMALL:
                break
        return motions

    def compare(self, motions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The correlation between points and volume in each group ``(G,)``, and the share of points in the volume."""
        shown, _, counts, share = self._sample(motions)
        total = counts.sum(1, keepdim=True).clamp_min(1e-12)
        a, b = (v - (counts * v).sum(1, keepdim=True) / total for v in (shown, self.values))
        product = (counts * a * b).sum(1)
        size = ((counts * a * a).sum(1) * (counts * b * b).sum(1)).sqrt()
        return torch.where(counts.sum(1) >= _FEWEST, product / size.clamp_min(1e-12), 0), share

    def select(self, which: torch.Tensor) -> RigidFit:
        """The same fit with some of the points, ``which`` (N,)."""
        other = copy.copy(self)
        other.values, other.counts, other.arms = self.values[:, which], self.counts[:, which], self.arms[:, which]
        return other

    def mirror(self, matrix: np.ndarray) -> RigidFit:
        """The same fit with the points mirrored by a matrix (4, 4) in mm, about the same centres of rotation."""
        other, into = copy.copy(self), move_to_device(torch.from_numpy(matrix), self.arms.device)
        points = self.arms + self.centres[:, None]
        other.arms = points @ into[:3, :3].T + into[:3, 3] - self.centres[:, None]
        return other

    def move_points(self, motions: torch.Tensor) -> torch.Tensor:
        """The points after motions, ``(G, N, 3)`` in mm, without the deformation."""
        return self._turn(motions) + (self.centres + motions[:, :3])[:, None]

    def measure_residual(self, motions: torch.Tensor) -> torch.Tensor:
        """The mean square difference of the points from the volume with the best gain in each group."""
        shown, _, counts, _ = self._sample(motions)
        gain = (counts * shown * self.values).sum(1) / (counts * shown * shown).sum(1).clamp_min(1e-12)
        return (counts * (self.values - gain[:, None] * shown).square()).sum() / counts.sum().clamp_min(1e-12)

    def _sample(self, motions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The volume at the points, its derivatives by the motions, what the points count, and the share in it."""
        arms = self._turn(motions)
        world = arms + (self.centres + motions[:, :3])[:, None]
        if self.deformation is not None:
            world = world + self.deformation.displace(world.reshape(-1, 3).T).T.reshape(world.shape)
        at = world @ self.into[:3, :3].T + self.into[:3, 3]
        inside = ((at >= 0) & (at <= self.last)).all(2)
        shown, *slopes, weights = sample_linear(self.channels, at.reshape(-1, 3).T).double().reshape(5, *at.shape[:2])
        counts = self.counts * inside * weights.clamp(0, 1)
        slope = torch.stack(slopes, dim=2) @ self.into[:3, :3]
        # A rotation by a small vector w moves an arm r by w x r, so the slope along w is r x slope.
        turning = torch.linalg.cross(arms, slope) * (math.pi / 180)
        share = counts.sum(1) / self.counts.sum(1).clamp_min(1e-12)
        return shown, torch.cat([slope, turning], dim=2), counts, share

    def _turn(self, motions: torch.Tensor) -> torch.Tensor:
        """The arms from the centres to the points, after the rotations."""
        rotations = torch.from_numpy(Rotation.from_rotvec(motions[:, 3:].cpu().numpy(), degrees=True).as_matrix())
        return torch.einsum("gij,gnj->gni", move_to_device(rotations, motions.device), self.arms)
