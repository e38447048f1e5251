"""Super-resolution of a whole volume by a network for thin slabs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..command_line import is_true
from ..progress import report


def slice_weights(slices: int, scale: int, offset: float) -> torch.Tensor:
    """Share of each output slice of a slab in the volume: its distance to the slab's centre slice decides.

    Output slice ``o`` of a slab lies at ``(o - offset) / scale`` in LR slices. It belongs to the slab whose centre is
    nearest, and to both in equal parts where two are equally near.

    Args:
        slices: odd number of LR slices of the slab.
        scale: factor along the slab's axis.
        offset: centre of LR slice 0 in HR slices.

    Returns:
        ``(slices * scale,)``, 0, 1/2 or 1.
    """
    distance = ((torch.arange(slices * scale, dtype=torch.float64) - offset) / scale - slices // 2).abs()
    weights = (distance < 0.5 - 1e-6).double()
    weights[(distance - 0.5).abs() < 1e-6] = 0.5
    return weights.float()


class SlabInferer(Inferer):
    """Runs a slab network over a volume, slab by slab and, where the plane is large, tile by tile.

    Every LR slice is the centre of one slab; the outermost are repeated outwards for that. Of a slab's output only the
    slices nearest to its centre enter the volume, because the outer ones are extrapolated (see :func:`slice_weights`).
    A tile is computed with a halo that is thrown away, so that tiles leave no seam: for a network whose receptive field
    is within the halo, the result does not depend on the tiles. Memory is the volume, its result, and one tile.

    Args:
        slices: odd number of slices of a slab.
        scale: factors ``(H, W, Z)`` of the network.
        offset: centre of LR voxel 0 in HR voxels an axis (``Degradation.offset``).
        tile: largest edge of a tile in LR pixels, its halo included.
        halo: LR pixels on each side of a tile that are computed and thrown away.
        amp: whether the network runs under autocast.
        amp_kwargs: of ``torch.autocast``, for example ``{"dtype": torch.bfloat16}``.

    Raises:
        ValueError: when ``slices`` is even or a tile has no pixels left within its halo.
    """

    def __init__(
        self,
        slices: int,
        scale: Sequence[int],
        offset: Sequence[float],
        tile: int = 320,
        halo: int = 32,
        amp: bool | str = False,
        amp_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        if slices % 2 == 0:
            raise ValueError(f"SlabInferer needs an odd number of slices, got {slices}.")
        if tile <= 2 * halo:
            raise ValueError(f"SlabInferer: a tile of {tile} with a halo of {halo} on each side has no pixels left.")
        self.slices = slices
        self.scale = tuple(scale)
        self.weights = slice_weights(slices, self.scale[2], offset[2])
        self.tile, self.halo = tile, halo
        self.amp, self.amp_kwargs = is_true(amp, "amp"), amp_kwargs or {}

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, H, W, D)``.
            network: maps ``(B, 1, h, w, slices)`` to ``(B, 1, sx h, sy w, sz slices)``.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            ``(B, 1, sx H, sy W, sz D)``, float32, on the device of ``inputs``.
        """
        batch, channels, height, width, depth = inputs.shape
        sx, sy, sz = self.scale
        half = self.slices // 2
        # Meta data would follow every operation of the network, at a cost.
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        out = torch.zeros((batch, channels, sx * height, sy * width, sz * depth), device=volume.device)
        shares = [self._share(z, depth, volume.device) for z in range(depth)]
        tiles = list(itertools.product(self._spans(height), self._spans(width)))
        autocast = torch.autocast(volume.device.type, **self.amp_kwargs) if self.amp else contextlib.nullcontext()
        with autocast:
            for done, ((y0, y1, y2, y3), (x0, x1, x2, x3)) in enumerate(tiles):
                rows = slice((y1 - y0) * sx, (y2 - y0) * sx)
                columns = slice((x1 - x0) * sy, (x2 - x0) * sy)
                inner = out[:, :, y1 * sx : y2 * sx, x1 * sy : x2 * sy]
                for z in range(depth):
                    slab = [min(max(i, 0), depth - 1) for i in range(z - half, z + half + 1)]
                    result = network(volume[:, :, y0:y3, x0:x3, slab], *args, **kwargs)
                    shift = (z - half) * sz  # output slice o of this slab is slice shift + o of the volume
                    begin, end, weights = shares[z]
                    result = result[:, :, rows, columns, begin:end].float()
                    inner[..., shift + begin : shift + end] += result * weights
                    report((done + (z + 1) / depth) / len(tiles))
        return out

    def _share(self, z: int, depth: int, device: torch.device) -> tuple[int, int, torch.Tensor]:
        """First and last output slice, plus one, of slab ``z`` that enter the volume, and their weights."""
        weights = self.weights.clone()
        centre = int((weights == 1).nonzero()[0])
        # Outwards from the first and the last slab there is no other to share with.
        if z == 0:
            weights[:centre] = 1
        if z == depth - 1:
            weights[centre + 1 :] = 1
        shift = (z - self.slices // 2) * self.scale[2]
        used = weights.nonzero().flatten().tolist()
        begin, end = max(used[0], -shift), min(used[-1] + 1, self.scale[2] * depth - shift)
        return begin, end, weights[begin:end].to(device)

    def _spans(self, length: int) -> list[tuple[int, int, int, int]]:
        """Tiles along an axis as ``(start, inner start, inner stop, stop)``."""
        if length <= self.tile:
            return [(0, 0, length, length)]
        step = self.tile - 2 * self.halo
        spans = []
        inner = 0
        while inner < length:
            stop = min(inner + step, length)
            spans.append((max(inner - self.halo, 0), inner, stop, min(stop + self.halo, length)))
            inner = stop
        return spans
