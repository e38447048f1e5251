"""Batches of images with the axis across the slices, of HR volumes and, drawn independently, of LR scans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from ...geometry.spline import apply_along_axes, make_upsampling_matrix
from ...graph import TensorGraph
from ...transforms.ct import check_slice_factor
from .slabs import PatchLoader, check_volume_sizes, choose_patch_start, find_tissue_voxels, permute_axes, sample_gains
from .volumes import VolumeCache

MULTIPLE = 4  # of an image's pixels along each axis, which the content encoders need
# Planes of HR patches by name: channel, the axis in plane, the one across the slices, and the one across the patch.
_PLANES = {
    "across": ((0, 1, 3, 2), (0, 2, 3, 1)),
    "any": tuple((0, *axes) for axes in itertools.permutations((1, 2, 3))),
    "slices": ((0, 1, 2, 3), (0, 2, 1, 3)),
}


def check_patch(lr_patch: Sequence[int], factor: int, graph: TensorGraph) -> None:
    """Raise a ValueError for patches whose HR images do not fit the translation networks.

    Args:
        lr_patch: size ``(p, w)`` of an LR patch.
        factor: HR slices per LR slice.
        graph: with the networks; ``smallest`` of a network is the least number of pixels of an image along each axis.
    """
    if not isinstance(lr_patch, (list, tuple)) or len(lr_patch) != 2:
        raise ValueError(f"lr_patch is {lr_patch!r}, expected two numbers of voxels: in plane and across the slices.")
    smallest = max(getattr(network, "smallest", 1) for network in graph.networks.values())
    p, w = lr_patch[0], factor * lr_patch[1]
    if min(p, w) < smallest or p % MULTIPLE or w % MULTIPLE:
        raise ValueError(
            f"lr_patch {list(lr_patch)} and scale {factor} give HR images of {p}x{w} pixels; stage 3 needs multiples "
            f"of {MULTIPLE}, at least {smallest}. Change --lr_patch, or lower layers and scales of --graph#networks"
            "#discriminator_mr and downsamplings of --graph#networks#attributes_mr."
        )


class ThroughPlaneLoader(PatchLoader):
    """Endless batches of patches of thin-slice volumes and, drawn independently, of thick-slice scans.

    A batch is ``{"hr": (B, 1, p, factor w), "hr_recoloured", "lr": (B, 1, p, w), "gains": (B, 1, 1, w)}``. Images are
    mapped from [0, 1] to [-1, 1]. "hr_recoloured" is "hr" with another contrast, or the same without ``contrasts``.
    "gains" is the brightness of its thick slices. With ``attributes`` there are standard normal attribute codes
    ``"prior_ct"`` and ``"prior_mr"`` ``(B, attributes)``. The last axis of an image runs across the slices; the other
    is one of the two in plane, drawn for each patch. Patches that are mostly air are avoided. Each patch is mirrored at
    random along the axis in plane, HR patches along the other too: they are degraded after augmentation.

    Args:
        source: HR volumes, key "hr", slices along the last axis, in [0, 1].
        target: LR scans, key "lr", slices along the last axis, in [0, 1] except for a few brighter voxels.
        lr_patch: size ``(p, w)`` of an LR patch.
        factor: HR slices per LR slice.
        batch_size, seed, device: as for :class:`PatchLoader`.
        attributes: values of an attribute code; 0 for none.
        contrasts: number of control points of a random curve from the intensities of "hr" to those of "hr_recoloured";
            at least 3, or 0 for none. The darkest intensity stays the darkest; the order of others may change, as for
            bone and brain between CT and MR.
        gains: largest standard deviation of the logarithm of brightness between thick slices, at least 0. Each patch
            has a random share of it (:class:`~common.networks.SliceGains` applies them).
        planes: of HR patches: "across" the slices of the source's volumes, "any" for isotropic volumes, or the "slices"
            themselves, of thick-slice scans, which are fine along both axes.
        zoom: largest factor, at least 1, by which pixels in plane are smaller than those of the source's volumes. Each
            patch is cut narrower by a random factor with a uniform logarithm, and interpolated with a cubic spline.
    """

    def __init__(
        self,
        source: VolumeCache,
        target: VolumeCache,
        lr_patch: Sequence[int],
        factor: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        attributes: int = 0,
        contrasts: int = 0,
        gains: float = 0.0,
        planes: str = "across",
        zoom: float = 1.0,
    ) -> None:
        super().__init__(batch_size, seed, device)
        source.to(device)
        target.to(device)
        check_slice_factor(factor)
        p, w = lr_patch
        self.sizes = {"hr": (p, factor * w), "lr": (p, w)}
        self.volumes = {"hr": source, "lr": target}
        if contrasts != 0 and contrasts < 3:
            raise ValueError(
                f"contrasts is {contrasts}, expected at least 3 control points, or 0 for the contrast of CT."
            )
        if not (0 <= gains < math.inf and 1 <= zoom < math.inf):
            raise ValueError(f"gains is {gains} and zoom {zoom}, expected numbers of at least 0 and at least 1.")
        self.attributes, self.contrasts, self.gains, self.zoom = attributes, contrasts, gains, zoom
        if planes not in _PLANES:
            raise ValueError(f"planes is {planes!r}, expected one of {', '.join(_PLANES)}.")
        self.factor, self.orders = factor, {"hr": _PLANES[planes], "lr": _PLANES["across"]}
        for key, group in (("hr", "source"), ("lr", "target")):
            size = (*self.sizes[key], 1)
            sides = [[size[order.index(axis) - 1] for axis in (1, 2, 3)] for order in self.orders[key]]
            check_volume_sizes(self.volumes[key], key, [*map(max, *sides)], group)
        self.tissue = {key: find_tissue_voxels(volumes, key) for key, volumes in self.volumes.items()}

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        sample = {}
        for key, volumes in self.volumes.items():
            i = int(rng.integers(len(volumes)))
            order = self.orders[key][int(rng.random() * len(self.orders[key]))]
            height, width = self.sizes[key]
            if key == "hr" and self.zoom > 1:
                height = max(2, round(height / self.zoom ** rng.random()))
            x, z, y = choose_patch_start(permute_axes(self.tissue[key][i], order), (height, width, 1), rng)
            image = volumes[i][key].permute(order)[:, x : x + height, z : z + width, y]
            if height != (finer := self.sizes[key][0]):
                zoom = finer / height
                image = apply_along_axes(image, [make_upsampling_matrix(height, finer, zoom, (zoom - 1) / 2), None])
            mirrored = [1] * (rng.random() < 0.5)
            if key == "hr":
                mirrored += [2] * (rng.random() < 0.5)
                if self.contrasts:
                    sample["curve"] = self._sample_curve(rng)
                slices = self.sizes["lr"][1]
                sample["gains"] = sample_gains(self.gains, slices, rng) if self.gains else torch.ones(1, 1, slices)
            sample[key] = image.flip(mirrored)
        for key in ("prior_ct", "prior_mr"):
            if self.attributes:
                sample[key] = torch.from_numpy(rng.standard_normal(self.attributes, dtype=np.float32))
        return sample

    def _sample_curve(self, rng: np.random.Generator) -> torch.Tensor:
        """Draw the heights of a curve at its control points; the first is 0, the highest 1."""
        heights = rng.random(self.contrasts)
        heights[0] = 0
        return torch.from_numpy((heights / heights.max()).astype(np.float32))

    def _make_batch(self, samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = super()._make_batch(samples)
        curves = batch.pop("curve", None)
        recoloured = batch["hr"] if curves is None else _apply_curves(batch["hr"], curves)
        signed = {"hr": batch["hr"], "hr_recoloured": recoloured, "lr": batch["lr"]}
        return batch | {key: 2 * images - 1 for key, images in signed.items()}


def _apply_curves(images: torch.Tensor, curves: torch.Tensor) -> torch.Tensor:
    """Images ``(B, ...)`` in [0, 1], mapped by curves through ``(B, points)``, which are evenly spaced and linear."""
    pieces = curves.shape[1] - 1
    place = images.flatten(1).clamp(0, 1) * pieces
    piece = place.long().clamp(max=pieces - 1)
    below, above = curves.gather(1, piece), curves.gather(1, piece + 1)
    return torch.lerp(below, above, place - piece).view_as(images)
