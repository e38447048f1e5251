"""Batches of 2-D images, cut from volumes across some of their axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .slabs import PatchLoader, check_fit, draw_start, permuted, tissue_masks
from .volumes import VolumeCache

# Orders of a channel-first volume's axes, by the axis across which its images are taken, which comes last.
_ORDERS = {0: [(0, 2, 3, 1)], 1: [(0, 1, 3, 2)], 2: [(0, 1, 2, 3), (0, 2, 1, 3)]}


class PlaneLoader(PatchLoader):
    """Patches of images of volumes, without end.

    A batch is ``{"hr": (B, 1, p, w)}``. Patches that are mostly air are avoided, and each is mirrored at random along
    either axis: what is made of it afterwards is made of what the augmentation has left.

    Args:
        volumes: slices along the last axis, in [0, 1].
        key: of the volumes; "lr" where the planes of LR scans are what is learned from.
        patch: size ``(p, w)``.
        planes: axes of a volume (X, Y, Z) across which images are taken: 0 gives images (Y, Z), 1 images (X, Z), 2
            the slices themselves, of which either axis comes last.
        batch_size: patches a batch, over all processes.
        seed: of the draws.
        device: of the batches.

    Raises:
        ValueError: when there are no such planes, a volume is smaller than a patch, or the batch does not divide among
            the processes.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        key: str,
        patch: Sequence[int],
        planes: Sequence[int],
        batch_size: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(batch_size, seed, device)
        if not planes or not set(planes) <= set(_ORDERS):
            raise ValueError(f"planes is {planes}, expected some of 0, 1 and 2: axes across which images are taken.")
        self.volumes, self.key, self.patch = volumes, key, tuple(patch)
        self.orders = [order for axis in planes for order in _ORDERS[axis]]
        for order in self.orders:
            size = dict(zip(order[1:], (*self.patch, 1), strict=True))
            check_fit(
                volumes, key, [size[axis] for axis in (1, 2, 3)], "target" if key == "lr" else "source", option="patch"
            )
        self.tissue = tissue_masks(volumes, key)

    def _sample(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        i = int(rng.integers(len(self.volumes)))
        order = self.orders[int(rng.integers(len(self.orders)))]
        x, y, z = draw_start(permuted(self.tissue[i], order), (*self.patch, 1), rng)
        image = self.volumes[i][self.key].permute(order)[:, x : x + self.patch[0], y : y + self.patch[1], z]
        return {"hr": image.flip([axis for axis in (1, 2) if rng.random() < 0.5])}
