"""Insert lesions of known size and contrast, to see later whether they are still there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from skimage.filters import threshold_otsu

from ...program.volume import Volume

DIAMETERS, CONTRASTS = (2.0, 3.0, 5.0, 8.0), (-0.3, 0.3)  # mm; to the mean of the tissue around
_PARTS = 5  # points inside of a voxel along each axis, which decide on its share
_NEAR = 4.0  # mm to each side of a site, where tissue is to be even
_CANDIDATES = 50000  # places among which sites are drawn
_LEAST = 4  # sites for each size and contrast
_MARGIN = 9.0  # mm, least distance of a centre from the border


@dataclass(frozen=True)
class InsertedLesion:
    """A ball-like lesion.

    Attributes:
        site: index of the voxel in its centre.
        diameter: mm.
        contrast: to the tissue around it, such as -0.3 for 30 % darker.
    """

    site: tuple[int, ...]
    diameter: float
    contrast: float

    def find_box(self, spacing: np.ndarray, size: Sequence[int]) -> tuple[slice, ...]:
        """The voxels that it reaches, of a volume of this spacing in mm and size in voxels, (3,)."""
        half = (int(np.ceil(self.diameter / 2 / step + 0.5)) for step in spacing)
        return tuple(
            slice(max(at - n, 0), min(at + n + 1, end)) for at, n, end in zip(self.site, half, size, strict=True)
        )


def insert_lesions(
    hr: Volume, contrasts: Sequence[float] = CONTRASTS, distance: float = 14.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[InsertedLesion]]:
    """Insert balls into tissue, far enough apart that they do not touch. Each voxel gets its share of a ball.

    Sites are drawn at random in the more even half of the tissue. Sizes and contrasts take turns, so that all are
    equally frequent. The texture of the tissue stays; a share of its local mean is added.

    Args:
        hr: any units.
        contrasts: to the mean of the tissue around, such as -0.3 for 30 % darker.
        distance: least distance of two centres in mm.
        seed: of the sites.

    Returns:
        Voxels ``(X, Y, Z)`` with lesions; a mask, where the voxels of lesion n are n, counted from 1; and the lesions.
    """
    kinds = list(itertools.product(DIAMETERS, contrasts))
    voxels = hr.voxels.astype(np.float32)
    means, is_even = _find_even_tissue(voxels, hr.spacing)
    sites = _draw_sites(is_even, hr.spacing, distance, seed)
    if len(sites) < _LEAST * len(kinds):
        raise ValueError(
            f"{hr.name}: found {len(sites)} sites for lesions, expected at least {_LEAST * len(kinds)}; name a volume "
            "that shows more tissue."
        )
    mask, lesions = np.zeros(voxels.shape, np.int16), []
    for number, site in enumerate(sites):
        lesion = InsertedLesion(tuple(site.tolist()), *kinds[number % len(kinds)])
        box = lesion.find_box(hr.spacing, voxels.shape)
        shares = _share_ball(lesion, box, hr.spacing)
        voxels[box] += lesion.contrast * means[lesion.site] * shares
        mask[box][shares >= min(0.5, shares.max())] = number + 1
        lesions.append(lesion)
    return voxels, mask, lesions


def _draw_sites(is_even: np.ndarray, spacing: np.ndarray, distance: float, seed: int) -> np.ndarray:
    """Indices ``(N, 3)`` in random order, at least the distance apart."""
    random = np.random.default_rng(seed)
    places = np.argwhere(is_even)
    border = np.ceil(_MARGIN / spacing)
    places = places[((places >= border) & (places < is_even.shape - border)).all(axis=1)]
    places = places[random.permutation(len(places))[:_CANDIDATES]]
    sites = []
    while len(places):
        sites.append(places[0])
        places = places[(((places - places[0]) * spacing) ** 2).sum(axis=1) >= distance**2]
    return np.array(sites).reshape(-1, 3)


def _share_ball(lesion: InsertedLesion, box: Sequence[slice], spacing: np.ndarray) -> np.ndarray:
    """The share of a ball in each voxel of a box."""
    inner = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    squared = []
    for axis, (centre, side, step) in enumerate(zip(lesion.site, box, spacing, strict=True)):
        at = (np.arange(side.start, side.stop)[:, None] + inner - centre) * step
        squared.append((at**2).reshape([1, 1] * axis + [-1, _PARTS] + [1, 1] * (2 - axis)))
    return (squared[0] + squared[1] + squared[2] <= lesion.diameter**2 / 4).mean(axis=(1, 3, 5)).astype(np.float32)


def _find_even_tissue(voxels: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means around each voxel, and where the tissue is more even than in half of its voxels."""
    sizes = [2 * round(_NEAR / step) + 1 for step in spacing.tolist()]
    means = uniform_filter(voxels, sizes)
    spread = uniform_filter(voxels**2, sizes) - means**2
    tissue = means > threshold_otsu(voxels.clip(0, np.quantile(voxels, 0.999)))
    relative = np.sqrt(spread.clip(0)) / np.maximum(means, 1e-12)
    return means, tissue & (relative <= np.median(relative[tissue]))
