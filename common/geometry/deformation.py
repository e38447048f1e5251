"""Smooth deformations between stacks: organs move against each other between two scans of a body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import cg

from ..runtime.memory import move_to_device
from .resampling import sample_linear
from .robust import estimate_sigma, weigh_by_residual

_SPACING = 20.0  # mm between the nodes
_ROUGH, _FAR = 1.5, 5.0  # mm: standard deviations of the difference between neighbouring nodes, and of a displacement
_STEPS = 8
_SMALL = 0.02  # mm: the fit stops after a smaller step
_PRECISION = 1e-8  # of the solution of a step
_INVERSIONS = 6


@dataclass(frozen=True)
class Deformation:
    """A displacement of points in mm, linear between nodes; beyond the outer nodes it is constant.

    Attributes:
        displacements: ``(3, A, B, C)``, along the axes of the world.
        affine: of the nodes, (4, 4).
    """

    displacements: torch.Tensor
    affine: np.ndarray

    def displace(self, points: torch.Tensor) -> torch.Tensor:
        """The displacements ``(3, N)`` of points ``(3, N)``."""
        into = move_to_device(torch.from_numpy(np.linalg.inv(self.affine)), points.device).to(points.dtype)
        return sample_linear(self.displacements, into[:3, :3] @ points + into[:3, 3:]).to(points.dtype)

    def find_origin(self, points: torch.Tensor) -> torch.Tensor:
        """Displacements ``(3, N)`` to the points that this deformation brings to points ``(3, N)``."""
        back = -self.displace(points)
        for _ in range(_INVERSIONS):
            back = -self.displace(points + back)
        return back

    def convert_to_voxels(self, affine: np.ndarray, inverse: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function that displaces positions ``(3, N)`` in voxels of a grid with this affine."""
        linear, into = torch.from_numpy(affine), torch.from_numpy(np.linalg.inv(affine[:3, :3]))

        def displace(at: torch.Tensor) -> torch.Tensor:
            a, b = (move_to_device(m.to(at.dtype), at.device) for m in (linear, into))
            world = a[:3, :3] @ at + a[:3, 3:]
            return at + b @ (self.find_origin(world) if inverse else self.displace(world))

        return displace


def fit_deformation(
    channels: torch.Tensor, affine: np.ndarray, points: torch.Tensor, values: torch.Tensor, counts: torch.Tensor
) -> Deformation:
    r"""Find the smooth displacement u of points for which a volume shows their values.

    .. math:: \min_u \sum_i c_i\, (v_i - g\, f(p_i + u(p_i)))^2 / \sigma^2
        + \sum_{(a, b)} \lVert u_a - u_b \rVert^2 / 1.5^2 + \sum_a \lVert u_a \rVert^2 / 5^2

    by Gauss-Newton steps; a and b are neighbouring nodes, 20 mm apart. Points with large residuals count less.

    Args:
        channels: ``(5, X, Y, Z)``: the volume f, its three derivatives by the voxel, and how much its places count.
        affine: of the volume, in mm.
        points: p, ``(3, N)`` in mm.
        values: v, ``(N,)``.
        counts: c, ``(N,)``.
    """
    low, high = points.min(1).values.cpu().numpy(), points.max(1).values.cpu().numpy()
    size = np.maximum(2, np.ceil((high - low) / _SPACING).astype(int) + 1)
    nodes = np.diag([*np.maximum((high - low) / (size - 1), 1e-3), 1.0])
    nodes[:3, 3] = low
    weights = _make_node_weights(((points.cpu().numpy().T - low) / np.diag(nodes)[:3]), size)
    stiff = sparse.block_diag([_make_stiffness(size)] * 3)
    into = move_to_device(torch.from_numpy(np.linalg.inv(affine)), points.device)
    u = np.zeros((3, int(np.prod(size))))
    for _ in range(_STEPS):
        moved = points + move_to_device(torch.from_numpy((weights @ u.T).T), points.device)
        at = into[:3, :3] @ moved + into[:3, 3:]
        shown, *slopes, there = sample_linear(channels, at).double()
        inside = ((at >= 0) & (at <= move_to_device(torch.tensor(channels.shape[1:])[:, None] - 1, at.device))).all(0)
        counted = counts * there.clamp(0, 1) * inside
        gain = (counted * shown * values).sum() / (counted * shown.square()).sum().clamp_min(1e-12)
        missed = values - gain * shown
        scale = estimate_sigma(missed, counted)
        robust = (weigh_by_residual(counted, missed, scale) / scale.square()).cpu().numpy()
        slope = (gain * (into[:3, :3].T @ torch.stack(slopes))).cpu().numpy()
        jacobian = sparse.hstack([sparse.diags(s) @ weights for s in slope]).tocsr()
        normal = jacobian.T @ sparse.diags(robust) @ jacobian + stiff
        right = jacobian.T @ (robust * missed.cpu().numpy()) - stiff @ u.ravel()
        # A dense solution took minutes where a scan of the body has thousands of nodes.
        step, _ = cg(normal, right, rtol=_PRECISION, M=sparse.diags(1 / normal.diagonal()))
        step = step.reshape(u.shape)
        u += step
        if np.abs(step).max() < _SMALL:
            break
    displacements = torch.from_numpy(u.reshape(3, *size)).float()
    return Deformation(move_to_device(displacements, points.device), nodes)


def _make_node_weights(at: np.ndarray, size: np.ndarray) -> sparse.csr_matrix:
    """Weights (N, nodes) of linear interpolation at positions (N, 3) in nodes."""
    base = np.clip(np.floor(at).astype(int), 0, size - 2)
    t = at - base
    columns, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        columns.append(np.ravel_multi_index(tuple((base + corner).T), tuple(size)))
        weights.append(np.where(corner, t, 1 - t).prod(axis=1))
    rows = np.tile(np.arange(len(at)), 8)
    shape = len(at), int(np.prod(size))
    return sparse.csr_matrix((np.concatenate(weights), (rows, np.concatenate(columns))), shape)


def _make_stiffness(size: np.ndarray) -> sparse.csr_matrix:
    """The matrix (nodes, nodes) of the penalty of displacements."""
    index = np.arange(np.prod(size)).reshape(size)
    nodes = sparse.identity(index.size, format="csr")
    matrix = nodes / _FAR**2
    for axis in range(3):
        a, b = (np.moveaxis(index, axis, 0)[s].ravel() for s in (slice(1, None), slice(None, -1)))
        difference = nodes[a] - nodes[b]
        matrix = matrix + difference.T @ difference / _ROUGH**2
    return matrix
