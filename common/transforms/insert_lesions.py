"""Insert lesions of known size and contrast, to see later whether they are still there."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from scipy.ndimage import uniform_filter
from skimage.filters import threshold_otsu

_PARTS = 5  # points inside of a voxel along each axis, which decide on its share
_NEAR = 4.0  # mm to each side of a site, where tissue is to be even
_CANDIDATES = 50000  # places among which sites are drawn
_LEAST = 4  # sites for each size and contrast


@dataclass(frozen=True)
class Lesion:
    """A ball-like lesion.

    Attributes:
        site: index of the voxel in its centre.
        diameter: mm.
        contrast: to the tissue around it, such as -0.3 for 30 % darker.
    """

    site: tuple[int, ...]
    diameter: float
    contrast: float


class InsertLesionsd(MapTransform):
    """Insert balls into tissue, far enough apart that they do not touch. Each voxel gets its share of a ball.

    Sites are drawn at random in the more even half of the tissue. Sizes and contrasts take turns, so that all are
    equally frequent. The texture of the tissue stays; a share of its local mean is added.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine, any units.
        diameters: in mm.
        contrasts: to the mean of the tissue around, such as -0.3 for 30 % darker.
        distance: least distance of two centres in mm.
        margin: least distance of a centre from the border in mm.
        seed: of the sites.

    Returns:
        An entry that also has ``<key>_lesions``, a list of :class:`Lesion`; and ``<key>_mask`` ``(1, X, Y, Z)``, where
        the voxels of lesion n are n, counted from 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        diameters: Sequence[float] = (2.0, 3.0, 5.0, 8.0),
        contrasts: Sequence[float] = (-0.3, 0.3),
        distance: float = 14.0,
        margin: float = 9.0,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.kinds = list(itertools.product(diameters, contrasts))
        self.distance, self.margin, self.seed = distance, margin, seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key]
            spacing = voxel_sizes(np.asarray(volume.affine))
            voxels = volume[0].numpy().astype(np.float32)
            means, is_even = _find_even_tissue(voxels, spacing)
            sites = self._draw_sites(is_even, spacing)
            if len(sites) < _LEAST * len(self.kinds):
                raise ValueError(
                    f"{volume.meta.get('filename_or_obj', key)}: found {len(sites)} sites for lesions, expected at "
                    f"least {_LEAST * len(self.kinds)}; name a volume that shows more tissue."
                )
            mask, lesions = np.zeros(voxels.shape, np.int16), []
            for number, site in enumerate(sites):
                lesion = Lesion(tuple(site.tolist()), *self.kinds[number % len(self.kinds)])
                box, shares = make_ball(lesion, spacing, voxels.shape)
                voxels[box] += lesion.contrast * means[lesion.site] * shares
                mask[box][shares >= min(0.5, shares.max())] = number + 1
                lesions.append(lesion)
            d[key] = MetaTensor(torch.from_numpy(voxels)[None]).copy_meta_from(volume)
            d[f"{key}_mask"] = MetaTensor(torch.from_numpy(mask)[None]).copy_meta_from(volume)
            d[f"{key}_lesions"] = lesions
        return d

    def _draw_sites(self, is_even: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """Indices ``(N, 3)`` in random order, at least the distance apart."""
        random = np.random.default_rng(self.seed)
        places = np.argwhere(is_even)
        border = np.ceil(self.margin / spacing)
        places = places[((places >= border) & (places < is_even.shape - border)).all(axis=1)]
        places = places[random.permutation(len(places))[:_CANDIDATES]]
        sites = []
        while len(places):
            sites.append(places[0])
            places = places[(((places - places[0]) * spacing) ** 2).sum(axis=1) >= self.distance**2]
        return np.array(sites).reshape(-1, 3)


def make_ball(lesion: Lesion, spacing: Sequence[float], size: Sequence[int]) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box around a lesion, and the share of the ball in each of its voxels.

    Args:
        lesion: inside of the volume.
        spacing: in mm, (3,).
        size: of the volume in voxels, (3,).
    """
    inner = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    box, squared = [], []
    for axis, (centre, step, n) in enumerate(zip(lesion.site, spacing, size, strict=True)):
        half = int(np.ceil(lesion.diameter / 2 / step + 0.5))
        box.append(slice(max(centre - half, 0), min(centre + half + 1, n)))
        at = (np.arange(box[-1].start, box[-1].stop)[:, None] + inner - centre) * step
        squared.append((at**2).reshape([1, 1] * axis + [-1, _PARTS] + [1, 1] * (2 - axis)))
    shares = (squared[0] + squared[1] + squared[2] <= lesion.diameter**2 / 4).mean(axis=(1, 3, 5))
    return tuple(box), shares.astype(np.float32)


def _find_even_tissue(voxels: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means around each voxel, and where the tissue is more even than in half of its voxels."""
    sizes = [2 * round(_NEAR / step) + 1 for step in spacing.tolist()]
    means = uniform_filter(voxels, sizes)
    spread = uniform_filter(voxels**2, sizes) - means**2
    tissue = means > threshold_otsu(voxels.clip(0, np.quantile(voxels, 0.999)))
    relative = np.sqrt(spread.clip(0)) / np.maximum(means, 1e-12)
    return means, tissue & (relative <= np.median(relative[tissue]))
