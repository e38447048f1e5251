"""How the stacks of an exam lie on each other, and whether they show the same contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import binary_erosion, gaussian_filter
from torch.nn import functional as F

from ...runtime.memory import move_to_device
from ..deformation import Deformation, fit_deformation
from ..gaussian import average_gaussian, compute_coarsening_sigma
from ..resampling import make_cubic_grid, sample_linear
from ..rigid import RigidFit, make_rigid_matrix
from ..stack import Stack
from .one_person import FLAT, LEAST_STACK_CORRELATION, WINDOW

_TISSUE = 0.1  # of the brightest
_LEVELS = ((4.0, 3.0, 4_000), (2.5, 1.5, 10_000), (1.5, 0.0, 30_000))  # mm of voxels, mm of blur, points
_TURNS = (-25.0, -12.0, 12.0, 25.0)  # degrees about each axis, from which the coarse fit starts, beside 0
_KEPT = 3  # best coarse fits that are refined
_BLACK = 0.1  # of the darker neighbour's mean: darker slices have no signal
_COMPARED = 3.0  # mm, standard deviation of the window in which contrasts are compared
_BORDER = 2  # voxels of tissue next to air, which are an edge in any contrast
_REVERSED = -0.3  # local correlation below which bright and dark are reversed
_FEWEST = 200  # voxels
# Measured on pairs of real stacks; two persons' heads had the same centre.
_MOST_REVERSED = 0.035  # of the common tissue
_WORSE, _GOOD = 3.0, 0.75  # a stack that misses so many times as much as the others; with this correlation none does
_MIRRORED = 0.6  # of what misses to correlation 1; mirrored stacks missed 0.05 to 0.39, another contrast 0.97 and more
_OVERLAP = 0.1  # least share of the smaller stack's tissue that both show
_GAIN, _LEFT = 0.01, 0.85  # least gain in correlation, and most of what was missing to 1, with a deformation


@dataclass(frozen=True)
class Region:
    """Where alone stacks are registered and compared: a mask ``(X, Y, Z)``, 0 to 1, and its affine in mm."""

    mask: torch.Tensor
    affine: np.ndarray

    def sample(self, size: tuple[int, ...], affine: np.ndarray) -> torch.Tensor:
        """The mask on another grid, 0 outside."""
        at = _list_positions(size, np.linalg.inv(self.affine) @ affine, self.mask.device)
        last = move_to_device(torch.tensor(self.mask.shape)[:, None] - 0.5, self.mask.device)
        inside = ((at >= -0.5) & (at <= last)).all(0)
        return (sample_linear(self.mask[None], at)[0] * inside).reshape(size)


@dataclass(frozen=True)
class Registration:
    """How one stack lies on another.

    Attributes:
        motion: translation along the axes of the world in mm, and rotation vector in degrees, (6,).
        matrix: (4, 4) in mm; multiply the moving stack's affine by it from the left.
        deformation: of the moving stack, after the matrix; None where it does not help.
        correlation: of the locally standardised stacks, before and after. It is without the
            deformation, by which two persons become alike.
        overlap: share of the tissue of the smaller one that both show.
        volume: that both show, in ml.
        reversal: share of the common tissue in which bright and dark are reversed, 0 to 1; NaN for fewer than 200
            voxels of 1.5 mm.
        mirrored: correlation of the moving stack, mirrored, where that shows that it is mirrored; else None.
    """

    motion: np.ndarray
    matrix: np.ndarray
    deformation: Deformation | None
    correlation: tuple[float, float]
    overlap: float
    volume: float
    reversal: float
    mirrored: float | None

    @property
    def misfit(self) -> str | None:
        """Why the two do not fit, or None."""
        if self.overlap < _OVERLAP:
            return f"{self.overlap:.0%} of the smaller one's tissue lies in both, expected at least {_OVERLAP:.0%}"
        if self.mirrored is not None:
            return (
                "it fits better mirrored, so its header is wrong or that of the other: the "
                f"correlation is {self.correlation[1]:.2f} as it is, and {self.mirrored:.2f} mirrored"
            )
        if math.isnan(self.reversal):
            return f"the two have too little tissue in common to compare, {self.volume:.1f} ml"
        if self.reversal > _MOST_REVERSED:
            return (
                "its contrast differs, or it is of another person: bright and dark are reversed in "
                f"{self.reversal:.1%} of the common tissue, expected at most {_MOST_REVERSED:.1%}"
            )
        if self.correlation[1] < LEAST_STACK_CORRELATION:
            return (
                f"the two are unlike: the correlation is {self.correlation[1]:.2f}, expected at "
                f"least {LEAST_STACK_CORRELATION}"
            )
        return None

    def compare(self, others: Sequence[Registration]) -> str | None:
        """Why this fit is much worse than those of other stacks on the same one, or None."""
        if not others:
            return None
        usual = float(np.median([each.correlation[1] for each in others]))
        if self.correlation[1] >= min(_GOOD, 1 - _WORSE * (1 - usual)):
            return None
        return f"it fits much worse than the others: the correlation is {self.correlation[1]:.2f}, theirs {usual:.2f}"


def register_stacks(
    fixed: Stack, moving: Stack, region: Region | None = None, is_rigid: bool = False, moves: bool = True
) -> Registration:
    r"""Find the rigid motion of a stack onto another, by local correlation.

    Each of the two is averaged with the slice profile of the other, so both show the same. Then each is standardised
    in a Gaussian window w of 8 mm,

    .. math:: z = \frac{v - w * v}{\sqrt{w * (v - w * v)^2 + \epsilon^2}},

    so that brightness fields and gains have no influence. The motion has the least robust squared difference of z. The
    fit starts from 13 turns of up to 25 degrees, and goes from voxels of 4 mm to 1.5 mm.

    Whether the two are of one contrast is judged after registration: in windows of 3 mm in tissue, the two have a
    correlation. In stacks of one contrast it is hardly anywhere below -0.3.

    The moving stack, mirrored along each of its axes, is registered too, at 4 mm. Where it fits better there, it is
    compared at 1.5 mm. It is mirrored if this fits, and misses less than 0.6 of what it missed to a correlation of 1.

    Args:
        fixed, moving: the stacks.
        region: where alone they are compared, on the fixed stack.
        is_rigid: whether there is no deformation, so it is not looked for.
        moves: false for stacks that are aligned already, which are only compared.
    """
    motions = [torch.zeros(6, dtype=torch.float64)]
    for axis in range(3) if moves else ():
        for turn in _TURNS:
            motions.append(torch.zeros(6, dtype=torch.float64))
            motions[-1][3 + axis] = turn
    # The same at all levels, as the motions of one are the starts of the next.
    centre = moving.centre
    if region is not None:
        centre = apply_affine(region.affine, torch.nonzero(region.mask).double().mean(0).cpu().numpy())
    for voxel, blur, points in _LEVELS:
        # Seen from where the last fit puts the moving stack; before the first, it may lie anywhere.
        there = make_rigid_matrix(motions[0].numpy(), centre)
        placed = replace(moving, affine=there @ moving.affine)
        back = replace(fixed, affine=np.linalg.inv(there) @ fixed.affine)
        is_placed = voxel < _LEVELS[0][0]
        views = [_View(a, b, voxel, blur, is_placed) for a, b in ((fixed, placed), (moving, back))]
        weights = views[0].tissue
        if region is not None:
            weights = weights * region.sample(views[0].size, views[0].affine)
        fit = views[1].make_fit(views[0], weights, points, centre)
        before = float(fit.compare(torch.zeros(1, 6, dtype=torch.float64, device=fit.values.device))[0])
        fitted = [motion.to(fit.values.device) for motion in motions]
        if moves:
            fitted = [fit.fit(motion[None])[0] for motion in fitted]
        scores = [float(c) * math.sqrt(float(s)) for c, s in (fit.compare(motion[None]) for motion in fitted)]
        order = sorted(range(len(fitted)), key=lambda i: -scores[i])
        motions = [fitted[i].cpu() for i in order[: _KEPT if voxel == _LEVELS[0][0] else 1]]
        if not is_placed:
            coarse = fit
    correlation, share = (float(v) for v in fit.compare(fitted[order[0]][None]))
    motion = motions[0].numpy()
    matrix = make_rigid_matrix(motion, centre)
    deformation = None if is_rigid or not moves else _deform(fit, fitted[order[0]])
    seen = share * float(views[1].tissue.sum())
    smaller = min(float(weights.sum()), float(views[1].tissue.sum()))
    return Registration(
        motion,
        matrix,
        deformation,
        (before, correlation),
        min(1.0, seen / max(smaller, 1.0)),
        seen * _LEVELS[-1][0] ** 3 / 1000,
        _measure_reversal(views[0], views[1], matrix, weights),
        _find_mirrored(moving, coarse, fit, fitted[order[0]], correlation),
    )


def _find_mirrored(
    stack: Stack, coarse: RigidFit, fine: RigidFit, motion: torch.Tensor, correlation: float
) -> float | None:
    """The correlation of a stack that is mirrored along one of its axes, if that is clearly higher; else None."""
    placed, best = coarse.move_points(motion[None])[0].mean(0), float(coarse.compare(motion[None])[0])
    found = None
    for axis, count in enumerate(stack.voxels.shape):
        flip = np.eye(4)
        flip[axis, axis], flip[axis, 3] = -1, count - 1
        flip = stack.affine @ flip @ np.linalg.inv(stack.affine)
        mirrored = coarse.mirror(flip)
        # Where its header puts it, and where it lies now.
        there = motion.clone()
        there[:3] += placed - mirrored.move_points(motion[None])[0].mean(0)
        for start in (torch.zeros_like(motion), there):
            fitted = mirrored.fit(start[None])
            agreement = float(mirrored.compare(fitted)[0])
            if agreement > best:
                best, found = agreement, (flip, fitted)
    if found is None:
        return None
    flip, fitted = found
    mirrored = fine.mirror(flip)
    agreement = float(mirrored.compare(mirrored.fit(fitted))[0])
    return agreement if agreement >= LEAST_STACK_CORRELATION and 1 - agreement < _MIRRORED * (1 - correlation) else None


def _deform(fit: RigidFit, motion: torch.Tensor) -> Deformation | None:
    """The deformation after a motion, or None if points that it was not fitted to hardly gain."""
    held = torch.arange(fit.counts.shape[1], device=fit.counts.device) % 3 == 0
    points = fit.move_points(motion[None])[0].T
    deformation = fit_deformation(
        fit.channels, fit.affine, points[:, ~held], fit.values[0, ~held], fit.counts[0, ~held]
    )
    other = fit.select(held)
    before = float(other.compare(motion[None])[0])
    other.deformation = deformation
    after = float(other.compare(motion[None])[0])
    return deformation if after > before + _GAIN and 1 - after < _LEFT * (1 - before) else None


class _View:
    """A stack on cubic voxels, averaged with another's slice profile: its brightness, its standardised contrast."""

    def __init__(self, stack: Stack, other: Stack, voxel: float, blur: float, is_placed: bool) -> None:
        self.size, self.affine = make_cubic_grid(stack.voxels.shape, stack.affine, voxel)
        # Pixels are averaged to the voxels before they are sampled.
        finer = compute_coarsening_sigma(stack.spacing, voxel) / stack.spacing * [1, 1, 0]
        means = stack.voxels.mean(dim=(0, 1))
        beside = torch.minimum(F.pad(means[:-1], (1, 0)), F.pad(means[1:], (0, 1)))
        measured = (stack.is_measured & (means >= _BLACK * beside)).float()
        averaged = _blur(stack.voxels, np.diag(finer**2), measured)
        at = _list_positions(self.size, np.linalg.inv(stack.affine) @ self.affine, averaged.device)
        volume, there = sample_linear(torch.stack([averaged, measured]), at).reshape(2, *self.size)
        linear = np.linalg.inv(self.affine[:3, :3])
        across = linear @ other.normal * other.sigma
        self.shown = _blur(volume, np.outer(across, across) + blur**2 * linear @ linear.T, there)
        window = (WINDOW / voxel) ** 2 * np.eye(3)
        own = there > 0.5
        if is_placed:
            there = there * Region(other.is_measured.float(), other.affine).sample(self.size, self.affine)
        difference = self.shown - _blur(self.shown, window, there)
        spread = _blur(difference.square(), window, there).clamp_min(0).sqrt()
        top = float(torch.quantile(self.shown.flatten()[:: max(1, self.shown.numel() // 100_000)], 0.99))
        self.contrast = difference / (spread.square() + (FLAT * top) ** 2).sqrt()
        self.tissue = (((spread > FLAT * top) | (self.shown > _TISSUE * top)) & own).float()

    def make_fit(self, fixed: _View, weights: torch.Tensor, count: int, centre: np.ndarray) -> RigidFit:
        """The fit of this view's tissue to another view, with ``count`` points drawn at random."""
        voxels = torch.nonzero(self.tissue > 0).cpu()
        chosen = voxels[torch.randperm(len(voxels), generator=torch.Generator().manual_seed(0))[:count]]
        device = self.contrast.device
        values = self.contrast[tuple(move_to_device(chosen, device).T)].double()
        points = chosen.double() @ torch.from_numpy(self.affine[:3, :3].T) + torch.from_numpy(self.affine[:3, 3])
        centres = move_to_device(torch.from_numpy(centre), device)[None]
        points = move_to_device(points, device)[None]
        return RigidFit(
            fixed.contrast, weights, fixed.affine, values[None], points, torch.ones_like(values)[None], centres
        )


def _measure_reversal(fixed: _View, moving: _View, matrix: np.ndarray, weights: torch.Tensor) -> float:
    """The share of the common tissue where the local correlation is below -0.3."""
    at = _list_positions(fixed.size, np.linalg.inv(matrix @ moving.affine) @ fixed.affine, fixed.shown.device)
    last = move_to_device(torch.tensor(moving.size)[:, None] - 1, at.device)
    inside = ((at >= 0) & (at <= last)).all(0).reshape(fixed.size) & (weights > 0.5)
    a, b = (v.cpu().numpy() for v in (fixed.shown, sample_linear(moving.shown[None], at)[0].reshape(fixed.size)))
    common = inside.cpu().numpy()
    if common.sum() < _FEWEST:
        return math.nan
    for v in (a, b):
        common &= v > _TISSUE * np.percentile(v[inside.cpu().numpy()], 99)
    common = binary_erosion(common, iterations=_BORDER)
    if common.sum() < _FEWEST:
        return math.nan
    box = tuple(
        slice(low, high + 1) for low, high in zip(*(f(np.argwhere(common), 0) for f in (np.min, np.max)), strict=True)
    )
    m = common[box].astype(np.float32)
    sigma = _COMPARED / _LEVELS[-1][0]
    total = np.maximum(gaussian_filter(m, sigma), 1e-3)

    def average(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v * m, sigma) / total

    a, b = a[box] / a[common].max(), b[box] / b[common].max()
    variances = [average(v * v) - average(v) ** 2 for v in (a, b)]
    covariance = average(a * b) - average(a) * average(b)
    correlation = covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1e-16))
    return float((correlation[m > 0] < _REVERSED).mean())


def _list_positions(size: tuple[int, ...], places: np.ndarray, device: torch.device) -> torch.Tensor:
    """Positions ``(3, N)`` of the voxels of a grid, by a matrix into another grid."""
    index = torch.stack(torch.meshgrid(*[torch.arange(n, device=device) for n in size], indexing="ij")).reshape(3, -1)
    matrix = move_to_device(torch.from_numpy(places).float(), device)
    return matrix[:3, :3] @ index.float() + matrix[:3, 3:]


def average_like(stack: Stack, other: Stack) -> torch.Tensor:
    """A stack's voxels, ``(X, Y, Z)``, averaged with the slice profile of another stack too."""
    across = np.linalg.solve(stack.affine[:3, :3], other.normal) * other.sigma
    return _blur(stack.voxels, np.outer(across, across), stack.is_measured.float())


def _blur(volume: torch.Tensor, covariance: np.ndarray, there: torch.Tensor) -> torch.Tensor:
    """The Gaussian average of the voxels that are ``there``, 0 to 1, by a covariance (3, 3) in voxels squared."""
    if covariance.max() <= 0:
        return volume
    return average_gaussian(volume * there, covariance) / average_gaussian(there, covariance).clamp_min(1e-3)
