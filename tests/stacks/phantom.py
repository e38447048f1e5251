"""A head that is known everywhere, and thick stacks of it as a scanner would acquire them, without interpolation."""

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from common.geometry.stack import Stack

_SIGMAS = 2 * np.sqrt(2 * np.log(2))
_NODES = np.linspace(-3, 3, 25)
RADII = np.array([26.0, 30.0, 24.0])


class Phantom:
    """An ellipsoid of smooth lumps about the origin.

    Args:
        seed: of the lumps.
        contrast: exponent of the grey values; another is another contrast of the same anatomy.
    """

    def __init__(self, seed: int = 0, contrast: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.centres = rng.uniform(-0.6, 0.6, (40, 3)) * RADII
        self.heights, self.widths = rng.uniform(-0.25, 0.5, 40), rng.uniform(2.0, 5.0, 40)
        self.contrast = contrast

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at points ``(..., 3)`` in mm."""
        inside = 1 / (1 + np.exp(8 * (np.linalg.norm(points / RADII, axis=-1) - 0.9)))
        lumps = sum(
            h * np.exp(-((points - c) ** 2).sum(axis=-1) / (2 * w**2))
            for c, h, w in zip(self.centres, self.heights, self.widths, strict=True)
        )
        value = inside * np.clip(0.4 + lumps, 0.02, 1)
        return value if self.contrast > 0 else inside * (1 - 0.9 * np.clip(0.4 + lumps, 0.02, 1))

    def on(self, shape: tuple[int, ...], affine: np.ndarray, motion: np.ndarray | None = None) -> np.ndarray:
        """The values of voxels; ``motion`` (4, 4) is where the head has moved."""
        return self.at(_world(shape, affine, motion))

    def stack(
        self, shape: tuple[int, ...], affine: np.ndarray, motion: np.ndarray | None = None, thickness: float = 1.0
    ) -> np.ndarray:
        """The voxels of a stack, slices along the last axis, with a Gaussian profile."""
        sigma = thickness / _SIGMAS
        weights = np.exp(-(_NODES**2) / 2)
        total = 0.0
        for node, weight in zip(_NODES, weights / weights.sum(), strict=True):
            shifted = affine.copy()
            shifted[:3, 3] += affine[:3, 2] * sigma * node
            total = total + weight * self.at(_world(shape, shifted, motion))
        return total


def _world(shape, affine, motion) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    places = affine if motion is None else np.linalg.inv(motion) @ affine
    return index @ places[:3, :3].T + places[:3, 3]


def grid(across: int, turned: np.ndarray = (0, 0, 0), size: int = 64, thick: int = 4) -> tuple[tuple, np.ndarray]:
    """Shape and affine of a stack of 1 mm pixels about the origin.

    Args:
        across: axis of the world that its slices lie across, before it is turned.
        turned: by which it is oblique, a rotation vector in degrees.
        size: pixels along both axes in plane, and mm across the slices.
        thick: mm between slices.
    """
    order = [axis for axis in range(3) if axis != across] + [across]
    shape = (size, size, size // thick)
    linear = Rotation.from_rotvec(turned, degrees=True).as_matrix()[:, order] @ np.diag([1.0, 1.0, thick])
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return shape, affine


def moved(numbers: np.ndarray) -> np.ndarray:
    """The matrix of a motion about the origin: three mm and a rotation vector in degrees."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(numbers[3:], degrees=True).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def save(path, voxels: np.ndarray, affine: np.ndarray) -> str:
    """Write a stack, scaled to 1000, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((1000 * voxels).astype(np.float32), affine), path)
    return str(path)


def acquire(
    phantom: Phantom,
    across: int,
    turned: np.ndarray = (0, 0, 0),
    motion: np.ndarray | None = None,
    name: str = "stack",
    thickness: float = 1.0,
) -> Stack:
    """A stack of a phantom, as :class:`common.geometry.stack.Stack`."""
    shape, affine = grid(across, turned)
    voxels = torch.from_numpy(phantom.stack(shape, affine, motion, thickness)).float()
    return Stack(voxels, affine, thickness, name, torch.ones(shape, dtype=torch.bool))


def shade(voxels: torch.Tensor, ratio: float = 3.0) -> torch.Tensor:
    """Voxels under a coil: the first plane is ``ratio`` times as bright as the last."""
    return voxels * ratio ** torch.linspace(0.5, -0.5, len(voxels))[:, None, None]
