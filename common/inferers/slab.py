"""Super-resolution of a whole volume by a network for thin slabs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from ..runtime.memory import pieces_at_once
from ..runtime.progress import report
from ..runtime.workers import side_by_side

_Span = tuple[int, int, int, int]
_Piece = tuple[tuple[_Span, _Span], int, int]  # a tile, first slab, and end of its slabs
# Memory of the activations per pixel of an LR slab: 2.5 KiB with 64 features in float32, and cuDNN's workspace.
_PIXEL_BYTES = 4096


def slice_weights(slices: int, scale: int, offset: float) -> torch.Tensor:
    """Weight of each output slice of a slab in the volume, by its distance to the slab's centre slice.

    Output slice ``o`` of a slab lies at ``(o - offset) / scale`` in LR slices. It is taken from the slab whose centre
    is nearest. If two slabs are equally near, their mean is taken.

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
    """Runs a slab network over a volume, slab by slab and, if the plane is large, tile by tile.

    Every LR slice is the centre of one slab; the outermost slices are repeated outwards. Only the output slices nearest
    to a slab's centre enter the volume, because the outer ones are extrapolated (see :func:`slice_weights`). A tile is
    computed with a halo that is discarded, so there are no seams. If the network's receptive field is within the halo,
    the result does not depend on the tiles. Memory holds the volume twice, its result, and a tile of one slab. On a GPU
    it holds as many slabs as fit into free memory, for speed.

    Args:
        degradation: from HR to LR, with the network's factors ``(H, W, Z)``.
        slices: odd number of slices of a slab.

    Attributes:
        tile: largest edge of a tile in LR pixels, including its halo.
        halo: LR pixels on each side of a tile that are computed and discarded.

    Raises:
        ValueError: when ``slices`` is even.
    """

    tile, halo = 320, 32

    def __init__(self, degradation: Degradation, slices: int = 1) -> None:
        super().__init__()
        if slices % 2 == 0:
            raise ValueError(f"SlabInferer needs an odd number of slices, got {slices}.")
        self.slices = slices
        self.scale = tuple(degradation.factors)
        self.weights = slice_weights(slices, self.scale[2], degradation.offset[2]).tolist()
        used = [o for o, weight in enumerate(self.weights) if weight]
        own = slices // 2 * self.scale[2]
        # Output slices that enter the volume, of inner slabs and of the outermost, which have no outer neighbour.
        self.used = slice(min(used[0], own), max(used[-1] + 1, own + self.scale[2]))

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, H, W, D)`` to ``(B, 1, sx H, sy W, sz D)``, float32, on the device of ``inputs``.

        The network maps ``(B, 1, h, w, slices)`` to ``(B, 1, sx h, sy w, sz slices)``.
        """
        batch, channels, height, width, depth = inputs.shape
        sx, sy, sz = self.scale
        # Meta data would slow down every operation of the network.
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        half = self.slices // 2
        # Not indexed, because an index would be copied to the device.
        padded = torch.cat([volume[..., :1]] * half + [volume] + [volume[..., -1:]] * half, dim=-1)
        weights = self._weights(depth, volume.device)
        # Slab z's output slices are added from slice z sz on; slices outside of the volume are cut off at the end.
        length, outside = weights.shape[1], half * sz - self.used.start
        out = torch.zeros((batch, channels, sx * height, sy * width, (depth - 1) * sz + length), device=volume.device)
        tiles = list(itertools.product(self._spans(height), self._spans(width)))
        pixels = [(y3 - y0) * (x3 - x0) for (y0, _, _, y3), (x0, _, _, x3) in tiles]
        size = batch * max(pixels) * _PIXEL_BYTES
        at_once = pieces_at_once(volume.device, size)

        def pieces() -> Iterator[_Piece]:
            for tile in tiles:
                first = 0
                while first < depth:
                    stop = min(first + at_once, depth)
                    yield tile, first, stop
                    first = stop

        def work(piece: _Piece) -> tuple[_Piece, torch.Tensor]:
            ((y0, y1, y2, y3), (x0, x1, x2, x3)), first, stop = piece
            slabs = padded[:, :, y0:y3, x0:x3, first : stop + 2 * half].unfold(-1, self.slices, 1)
            result = fitting(slabs.movedim(4, 1).flatten(0, 1).contiguous())
            rows = slice((y1 - y0) * sx, (y2 - y0) * sx)
            columns = slice((x1 - x0) * sy, (x2 - x0) * sy)
            return piece, result[:, :, rows, columns, self.used].unflatten(0, (batch, -1)).movedim(1, 4)

        def fitting(slabs: torch.Tensor) -> torch.Tensor:
            nonlocal at_once
            try:
                return network(slabs, *args, **kwargs)
            except torch.OutOfMemoryError:
                if len(slabs) == batch:
                    raise
            at_once = len(slabs) // batch // 2
            return torch.cat([fitting(some) for some in slabs.split(at_once * batch)])

        done = 0
        for piece, result in side_by_side(work, pieces(), volume.device, size):
            ((y0, y1, y2, y3), (x0, x1, x2, x3)), first, stop = piece
            inner = out[:, :, y1 * sx : y2 * sx, x1 * sy : x2 * sy].unfold(-1, length, sz)
            # Neighbouring slabs overlap, so they are added by separate calls.
            apart = -(-length // sz)
            for begin in range(first, min(first + apart, stop)):
                share = result[..., begin - first :: apart, :]
                inner[..., begin:stop:apart, :].addcmul_(share, weights[begin:stop:apart])
            done += (stop - first) * (y3 - y0) * (x3 - x0)
            report(done / (depth * sum(pixels)))
        return out[..., outside : outside + sz * depth]

    def _weights(self, depth: int, device: torch.device) -> torch.Tensor:
        """Weights ``(depth, n)`` in the volume of the output slices that each slab contributes."""
        weights = torch.empty((depth, len(self.weights)), device=device)
        for o, weight in enumerate(self.weights):
            weights[:, o] = weight
        # The first and the last slab have no outer neighbour to share slices with.
        centre = self.weights.index(1.0)
        weights[0, :centre] = 1
        weights[-1, centre + 1 :] = 1
        return weights[:, self.used]

    def _spans(self, length: int) -> list[_Span]:
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
