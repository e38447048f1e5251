"""Batches of slice patches with their guide, augmented before they are degraded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...degradations.profiles import GaussianProfile
from .slabs import (
    PatchLoader,
    check_noise_levels,
    check_volume_sizes,
    choose_patch_start,
    find_tissue_voxels,
    stack_to_device,
)
from .volumes import VolumeCache

_BEYOND = 4  # pixels around a window: two for the cubic kernel, and two for rounding


@dataclass(frozen=True)
class _Window:
    """A window to resample."""

    scale: int  # index
    plane: torch.Tensor  # (h, w), the part of the plane that the window needs
    theta: torch.Tensor  # (2, 3), float64, its position there, as for torch.nn.functional.affine_grid


class SliceLoader(PatchLoader):
    """Endless batches of patches of HR slices, and of the guide at the same place.

    A batch is ``{"hr": (B, 1, p, p, 1), "hr_context", "guide"}``. "hr_context" is "hr" with a margin on each side of
    the plane. "guide" has the size of "hr", or no channel if the volumes have none.

    Slices are rotated, mirrored and rescaled before they are cut, so the degradation in the graph acts
    on the augmented patch. Rescaling by s < 1 reduces the resolution to that of a scan with voxels 1 / s times as large
    (:class:`~common.degradations.GaussianProfile`). Outermost pixels are repeated beyond the edges. Patches that are
    mostly air are avoided.

    Args:
        volumes: with the key "hr", and "guide" on the same grid. Their memory layout is changed in place, to slices.
        patch: edge p of a patch in pixels.
        margin: pixels around the patch in ``hr_context``.
        angle_step: a slice is rotated by a multiple of these degrees, drawn evenly.
        batch_size, seed, device: as for :class:`PatchLoader`.
        scales: factors by which it may be rescaled, 0 < s <= 1, drawn evenly.
        guide_shift: largest shift of the guide along each axis in pixels, drawn uniformly in both directions.
        mirrored: share of the slices that are mirrored.
        group: group of the volumes in the datalist, for messages.
    """

    option = "hr_patch"  # of the configs, for messages

    def __init__(
        self,
        volumes: VolumeCache,
        patch: int,
        margin: int,
        angle_step: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        scales: Sequence[float] = (1.0,),
        guide_shift: float = 0.0,
        mirrored: float = 0.5,
        group: str = "target",
    ) -> None:
        super().__init__(batch_size, seed, device)
        volumes.to(device)
        if not scales or not all(0 < s <= 1 for s in scales):
            raise ValueError(f"SliceLoader: scales are {scales}, expected factors of more than 0 and at most 1.")
        self.patch, self.margin = patch, margin
        self.angles, self.scales, self.guide_shift = range(0, 360, angle_step), tuple(scales), guide_shift
        self.mirrored = mirrored
        check_volume_sizes(volumes, "hr", (patch, patch, 1), group, self.option)
        volumes.keep_by_slice()
        self.volumes = volumes
        self.tissue = find_tissue_voxels(volumes, "hr")
        size = patch + 2 * margin
        # Before its resolution is reduced, a window has more pixels. Their number is rounded, so it does not quite fit
        # the scale; the reduction gives exactly the size.
        self.sources = [math.floor(size / scale + 0.5) for scale in self.scales]
        self.profiles = [GaussianProfile((1, source / size, source / size)) for source in self.sources]

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, Any]:
        i = int(rng.integers(len(self.volumes)))
        first, second, z = choose_patch_start(self.tissue[i], (self.patch, self.patch, 1), rng)
        angle = self.angles[int(rng.integers(len(self.angles)))]
        scale = int(rng.integers(len(self.scales)))
        mirrored = rng.random() < self.mirrored
        x, y = (start + (self.patch - 1) / 2 for start in (first, second))
        planes = {key: volume[0, ..., z] for key, volume in self.volumes[i].items()}
        sample = {"hr": self._make_window(planes["hr"], (x, y), angle, mirrored, scale)}
        if "guide" in planes:
            # In pixels of the patch, whatever the scale.
            dx, dy = (rng.uniform(-self.guide_shift, self.guide_shift, size=2) / self.scales[scale]).tolist()
            sample["guide"] = self._make_window(planes["guide"], (x + dx, y + dy), angle, mirrored, scale)
        return sample

    def _make_window(
        self, plane: torch.Tensor, centre: Sequence[float], angle: float, mirrored: bool, scale: int
    ) -> _Window:
        """A window about a point of a plane ``(H, W)``, rotated, and then mirrored along its rows."""
        half = (self.sources[scale] - 1) / 2
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # Parts have the same size for all angles, so that they can be resampled together.
        edge = 2 * (math.ceil(math.sqrt(2) * half) + _BEYOND)
        sizes = [min(edge, n) for n in plane.shape]
        starts = [
            min(max(math.floor(c) - edge // 2, 0), n - k) for c, n, k in zip(centre, plane.shape, sizes, strict=True)
        ]
        sign = -1 if mirrored else 1
        rows, columns = (sign * cos, -sin), (sign * sin, cos)  # for a step down and one across
        # affine_grid counts in half extents and in the order x, y.
        theta = [
            [half * across * 2 / (k - 1), half * down * 2 / (k - 1), 2 * (c - start) / (k - 1) - 1]
            for (down, across), c, start, k in zip((rows, columns), centre, starts, sizes, strict=True)
        ]
        part = plane[starts[0] : starts[0] + sizes[0], starts[1] : starts[1] + sizes[1]]
        return _Window(scale, part, torch.tensor(theta[::-1], dtype=torch.float64))

    def _make_batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch_samples = {key: [sample[key] for sample in samples] for key in samples[0]}
        windows = [*batch_samples.pop("hr"), *batch_samples.pop("guide", [])]
        groups: defaultdict[tuple, list[int]] = defaultdict(list)
        for i, window in enumerate(windows):
            group = (window.scale, *window.plane.shape)
            groups[group].append(i)
        parts: dict[Any, list[torch.Tensor]] = dict(batch_samples)
        for group, members in groups.items():
            parts["planes", group] = [windows[i].plane for i in members]
            parts["thetas", group] = [windows[i].theta for i in members]
        order = np.argsort([i for members in groups.values() for i in members])
        parts["order"] = [torch.from_numpy(order)]
        batch: Any = stack_to_device(self.device, parts)
        resampled: Any = [
            self._resample_planes(batch.pop(("planes", g)), batch.pop(("thetas", g)), g[0]) for g in groups
        ]
        resampled = torch.cat(resampled)[batch.pop("order")[0]][..., None]
        context, guide = resampled[: len(samples)], resampled[len(samples) :]
        m, end = self.margin, self.margin + self.patch
        batch |= {"hr": context[:, :, m:end, m:end].contiguous(), "hr_context": context}
        batch["guide"] = guide[:, :, m:end, m:end].contiguous() if len(guide) else batch["hr"][:, :0]
        return batch

    def _resample_planes(self, planes: torch.Tensor, thetas: torch.Tensor, scale: int) -> torch.Tensor:
        """Parts of planes ``(n, h, w)`` to windows ``(n, 1, p + 2 m, p + 2 m)``."""
        # The same as affine_grid, mostly by a sum.
        along = torch.linspace(-1, 1, self.sources[scale], dtype=thetas.dtype, device=thetas.device)[:, None]
        across, down, middle = thetas[:, None].unbind(-1)
        grid = (down * along).to(planes)[:, :, None] + (across * along + middle).to(planes)[:, None]
        windows = F.grid_sample(planes[:, None], grid, mode="bicubic", padding_mode="border", align_corners=True)
        return self.profiles[scale](windows)


class KernelSliceLoader(SliceLoader):
    """A :class:`SliceLoader` whose batches also have kernels and noise to make LR patches.

    For each patch there is a random kernel, "kernel" ``(B, K, K)``, and normal noise for both channels of a receiver,
    "noise" ``(B, 2, p / f, p / f, 1)``, with a standard deviation drawn from ``noise_levels``.

    Args:
        kernels: ``(N, K, K)``.
        noise_levels: standard deviations of the noise, in units of the normalised intensity, at least 0.
        factor: f, HR pixels per LR pixel.
        volumes, options: the arguments of :class:`SliceLoader`.
    """

    option = "lr_patch"

    def __init__(
        self, volumes: VolumeCache, kernels: torch.Tensor, noise_levels: Sequence[float], factor: int, **options: Any
    ) -> None:
        super().__init__(volumes, group="source", **options)
        self.kernels = kernels
        self.noise_levels = check_noise_levels(noise_levels=noise_levels)
        self.factor = factor

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, Any]:
        sample = super()._sample_patch(rng)
        sample["kernel"] = self.kernels[int(rng.integers(len(self.kernels)))]
        edge = self.patch // self.factor
        level = self.noise_levels[int(rng.integers(len(self.noise_levels)))]
        sample["noise"] = torch.from_numpy(level * rng.standard_normal((2, edge, edge, 1), dtype=np.float32))
        return sample
