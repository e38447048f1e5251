"""Batches of three slices, across the slices of thick-slice scans and across their planes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .slabs import PatchLoader, check_fit, cut, draw_start, tissue_masks
from .volumes import VolumeCache


class TripletLoader(PatchLoader):
    """Endless batches of three successive slices of a scan, and of three equidistant images across an axis in plane.

    A batch is ``{"above", "slice", "below": (B, 1, p, p), "first", "second", "third": (B, 1, p, w)}``. Patches that are
    mostly air are avoided. Each triplet is mirrored at random along either axis, and in its order.

    Args:
        volumes: with the key "lr", thick slices along the last axis, in [0, 1].
        lr_patch: size ``(p, w)``, p in plane and w across the slices.
        factor: HR slices per LR slice.
        batch_size: triplets of each kind per batch, over all processes.
        seed: of the draws.
        device: of the batches.
        reach: largest distance in voxels between neighbouring images across an axis in plane; default half a slice's
            thickness.

    Raises:
        ValueError: when a volume is smaller than a patch, or the batch does not divide.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        lr_patch: Sequence[int],
        factor: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        reach: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, device)
        reach = max(1, round(factor / 2)) if reach is None else reach
        self.lr_patch, self.reach, self.volumes = tuple(lr_patch), reach, volumes
        edge, slices = self.lr_patch
        across = 2 * reach + 1
        for size in ((edge, edge, max(3, slices)), (across, edge, slices), (edge, across, slices)):
            check_fit(volumes, "lr", size, "target")
        self.tissue = tissue_masks(volumes, "lr")

    def _sample(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        i = int(rng.integers(len(self.volumes)))
        volume, tissue = self.volumes[i]["lr"], self.tissue[i]
        edge, slices = self.lr_patch
        rows = self._three(volume, tissue, 2, 1, (edge, edge, 3), rng)
        axis, distance = int(rng.integers(2)), int(rng.integers(1, self.reach + 1))
        size = [edge, edge, slices]
        size[axis] = 2 * distance + 1
        images = self._three(volume, tissue, axis, distance, size, rng)
        return dict(zip(("above", "slice", "below", "first", "second", "third"), (*rows, *images), strict=True))

    @staticmethod
    def _three(
        volume: torch.Tensor,
        tissue: np.ndarray,
        axis: int,
        distance: int,
        size: Sequence[int],
        rng: np.random.Generator,
    ) -> list[torch.Tensor]:
        start = draw_start(tissue, size, rng)
        images = list(cut(volume, start, size).movedim(axis + 1, 0)[::distance])
        flips = [dim for dim in (1, 2) if rng.integers(2)]
        images = [image.flip(flips) for image in images]
        return images[::-1] if rng.integers(2) else images
