"""Batches of slice patches with their guide, augmented before anything degrades them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...degradations import GaussianProfile
from .slabs import PatchLoader, check_fit, draw_start
from .volumes import VolumeCache


class SliceLoader(PatchLoader):
    """Patches of HR slices, and of the guide at the same place, without end.

    A batch is ``{"hr": (B, 1, p, p, 1), "hr_context", "guide"}``: "hr_context" is "hr" with a margin on each side of
    the plane, and "guide", where the volumes have one, has the size of "hr".

    A slice is rotated, mirrored (every other one) and rescaled before it is cut, so that a degradation in the graph
    acts on what the augmentation has made. It is resampled with torch's cubic kernel (a = -3/4). Rescaled by s < 1, its
    resolution is reduced to that of a scan with voxels 1 / s times as large
    (:class:`~common.degradations.GaussianProfile`). Beyond its edges a slice goes on as its outermost pixels. Patches
    that are mostly air are avoided.

    Args:
        volumes: with the key "hr", and "guide" on the same grid.
        patch: edge p of a patch in pixels.
        margin: pixels around the patch in ``hr_context``.
        angles: degrees by which a slice may be rotated, drawn evenly.
        batch_size: patches a batch, over all processes.
        seed: of the draws.
        device: of the batches.
        scales: factors by which it may be rescaled, 0 < s <= 1, drawn evenly.
        guide_shift: pixels by which the guide may be off along each axis, drawn evenly from minus to plus that much.

    Raises:
        ValueError: when a volume is smaller than a patch, a scale is out of its range, or the batch does not divide
            among the processes.
    """

    group, option = "target", "hr_patch"  # of the datalist, and of the configs, for messages

    def __init__(
        self,
        volumes: VolumeCache,
        patch: int,
        margin: int,
        angles: Sequence[float],
        batch_size: int,
        seed: int,
        device: torch.device | str,
        scales: Sequence[float] = (1.0,),
        guide_shift: float = 0.0,
    ) -> None:
        super().__init__(batch_size, seed, device)
        if not scales or not all(0 < s <= 1 for s in scales):
            raise ValueError(f"SliceLoader: scales are {scales}, expected factors of more than 0 and at most 1.")
        self.patch, self.margin = patch, margin
        self.angles, self.scales, self.guide_shift = tuple(angles), tuple(scales), guide_shift
        check_fit(volumes, "hr", (patch, patch, 1), self.group, self.option)
        self.volumes = volumes

    def _sample(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        item = self.volumes[int(rng.integers(len(self.volumes)))]
        first, second, z = draw_start(item["hr"], (self.patch, self.patch, 1), rng)
        angle = self.angles[int(rng.integers(len(self.angles)))]
        scale = self.scales[int(rng.integers(len(self.scales)))]
        mirrored = rng.random() < 0.5
        centre = np.array([first, second]) + (self.patch - 1) / 2
        m, end = self.margin, self.margin + self.patch

        def window(key: str, middle: np.ndarray) -> torch.Tensor:
            found = self._window(item[key][..., z], middle, angle, scale)[..., None]
            return found.flip(1) if mirrored else found

        context = window("hr", centre)
        sample = {"hr": context[:, m:end, m:end], "hr_context": context}
        if "guide" in item:
            # In pixels of the patch, whatever the scale.
            shift = rng.uniform(-self.guide_shift, self.guide_shift, size=2) / scale
            sample["guide"] = window("guide", centre + shift)[:, m:end, m:end]
        return sample

    def _window(self, plane: torch.Tensor, centre: Sequence[float], angle: float, scale: float) -> torch.Tensor:
        """``(1, H, W)`` about a point, rotated, and with voxels 1 / scale times as large: ``(1, p + 2 m, p + 2 m)``."""
        size = self.patch + 2 * self.margin
        source = math.floor(size / scale + 0.5)
        along = torch.arange(source, dtype=torch.float64) - (source - 1) / 2
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        rows = centre[0] + cos * along[:, None] - sin * along
        columns = centre[1] + sin * along[:, None] + cos * along
        # grid_sample counts in half extents and in the order x, y.
        height, width = plane.shape[1:]
        grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)[None]
        window = F.grid_sample(
            plane[None].cpu(), grid.to(plane.dtype), mode="bicubic", padding_mode="border", align_corners=True
        )[0]
        if scale < 1:
            # Not quite the scale where the window has been rounded, but exactly the size.
            factor = source / size
            window = GaussianProfile((factor, factor, 1))(window[..., None])[..., 0]
        return window


class KernelSliceLoader(SliceLoader):
    """A :class:`SliceLoader` whose batches also bring what makes LR patches of the HR ones.

    That is for each patch a kernel, drawn evenly, "kernel" ``(B, K, K)``; and the noise of both channels of a receiver,
    "noise" ``(B, 2, p / f, p / f, 1)``, normally distributed with a standard deviation that is drawn evenly.

    Args:
        volumes: as for :class:`SliceLoader`.
        kernels: ``(N, K, K)``.
        noise_levels: standard deviations of the noise, in units of the normalised intensity.
        factor: f, HR pixels per LR pixel.
        options: the other arguments of :class:`SliceLoader`.

    Raises:
        ValueError: as :class:`SliceLoader`, and when there is no noise level or one is negative.
    """

    group, option = "source", "lr_patch"

    def __init__(
        self, volumes: VolumeCache, kernels: torch.Tensor, noise_levels: Sequence[float], factor: int, **options: Any
    ) -> None:
        super().__init__(volumes, **options)
        if not noise_levels or not all(level >= 0 for level in noise_levels):
            raise ValueError(f"noise_levels are {noise_levels}, expected numbers of at least 0; [0.0] is no noise.")
        self.kernels = kernels
        self.noise_levels = list(noise_levels)
        self.factor = factor

    def _sample(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        sample = super()._sample(rng)
        sample["kernel"] = self.kernels[int(rng.integers(len(self.kernels)))]
        edge = self.patch // self.factor
        level = self.noise_levels[int(rng.integers(len(self.noise_levels)))]
        sample["noise"] = torch.from_numpy(level * rng.standard_normal((2, edge, edge, 1), dtype=np.float32))
        return sample
