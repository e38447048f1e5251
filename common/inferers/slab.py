"""Super-resolution of a whole volume by networks for thin slabs, across one axis or several."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from ..degradations.base import Degradation, remove_metadata
from ..runtime.memory import count_pieces_at_once
from ..runtime.progress import begin_part, report_progress
from ..runtime.workers import run_in_parallel

_Span = tuple[int, int, int, int]
_Piece = tuple[tuple[_Span, _Span], int, int]  # a tile, first slab, and end of its slabs
# Memory of the activations per pixel of an LR slab: 2.5 KiB with 64 features in float32, and cuDNN's workspace.
_PIXEL_BYTES = 4096
_SPATIAL = (2, 3, 4)


def compute_slice_weights(slices: int, scale: int, offset: float) -> torch.Tensor:
    """Weight in the volume, 0, 1/2 or 1, of each output slice of a slab of ``slices`` LR slices.

    Output slice ``o`` lies at ``(o - offset) / scale`` in LR slices. It is taken from the slab whose centre is nearest.
    If two slabs are equally near, their mean is taken.
    """
    distance = ((torch.arange(slices * scale, dtype=torch.float64) - offset) / scale - slices // 2).abs()
    weights = (distance < 0.5 - 1e-6).double()
    weights[(distance - 0.5).abs() < 1e-6] = 0.5
    return weights.float()


class SlabInferer(Inferer):
    """Runs a slab network over a volume, slab by slab and, if the plane is large, tile by tile.

    Every LR slice is the centre of one slab; the outermost slices are repeated outwards. Only the output slices nearest
    to a slab's centre enter the volume, because the outer ones are extrapolated. A tile is computed with a halo that is
    discarded, so there are no seams. Memory holds the volume twice, its result, and a tile of one slab (on a GPU of as
    many slabs as fit).

    Args:
        degradation: from HR to LR, with the network's factors ``(H, W, Z)``.
        slices: odd number of slices of a slab.

    Attributes:
        tile: largest edge of a tile in LR pixels, including its halo.
        halo: LR pixels on each side of a tile that are computed and discarded.
    """

    tile, halo = 320, 32

    def __init__(self, degradation: Degradation, slices: int = 1) -> None:
        super().__init__()
        if slices % 2 == 0:
            raise ValueError(f"SlabInferer needs an odd number of slices, got {slices}.")
        self.slices = slices
        self.scale = tuple(degradation.factors)
        self.weights = compute_slice_weights(slices, self.scale[2], degradation.offset[2]).tolist()
        used = [o for o, weight in enumerate(self.weights) if weight]
        overlap = slices // 2 * self.scale[2]
        # Output slices that enter the volume, of inner slabs and of the outermost, which have no outer neighbour.
        self.used = slice(min(used[0], overlap), max(used[-1] + 1, overlap + self.scale[2]))

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, H, W, D)`` to ``(B, 1, sx H, sy W, sz D)``, float32, on the device of ``inputs``.

        The network maps ``(B, 1, h, w, slices)`` to ``(B, 1, sx h, sy w, sz slices)``.
        """
        batch, channels, height, width, depth = inputs.shape
        sx, sy, sz = self.scale
        volume = remove_metadata(inputs)
        half = self.slices // 2
        # Not indexed, because an index would be copied to the device.
        padded = torch.cat([volume[..., :1]] * half + [volume] + [volume[..., -1:]] * half, dim=-1)
        weights = self._compute_weights(depth, volume.device)
        # Slab z's output slices are added from slice z sz on; slices outside of the volume are cut off at the end.
        length, outside = weights.shape[1], half * sz - self.used.start
        out = torch.zeros((batch, channels, sx * height, sy * width, (depth - 1) * sz + length), device=volume.device)
        tiles = list(itertools.product(self._list_spans(height), self._list_spans(width)))
        pixels = [(y3 - y0) * (x3 - x0) for (y0, _, _, y3), (x0, _, _, x3) in tiles]
        size = batch * max(pixels) * _PIXEL_BYTES
        at_once = count_pieces_at_once(volume.device, size)

        def cut_pieces() -> Iterator[_Piece]:
            for tile in tiles:
                first = 0
                while first < depth:
                    stop = min(first + at_once, depth)
                    yield tile, first, stop
                    first = stop

        def run_piece(piece: _Piece) -> tuple[_Piece, torch.Tensor]:
            ((y0, y1, y2, y3), (x0, x1, x2, x3)), first, stop = piece
            slabs = padded[:, :, y0:y3, x0:x3, first : stop + 2 * half].unfold(-1, self.slices, 1)
            result = run_slabs(slabs.movedim(4, 1).flatten(0, 1).contiguous())
            rows = slice((y1 - y0) * sx, (y2 - y0) * sx)
            columns = slice((x1 - x0) * sy, (x2 - x0) * sy)
            return piece, result[:, :, rows, columns, self.used].unflatten(0, (batch, -1)).movedim(1, 4)

        def run_slabs(slabs: torch.Tensor) -> torch.Tensor:
            nonlocal at_once
            try:
                return network(slabs, *args, **kwargs)
            except torch.OutOfMemoryError:
                if len(slabs) == batch:
                    raise
            at_once = len(slabs) // batch // 2
            return torch.cat([run_slabs(some) for some in slabs.split(at_once * batch)])

        done = 0
        for piece, result in run_in_parallel(run_piece, cut_pieces(), volume.device, size):
            ((y0, y1, y2, y3), (x0, x1, x2, x3)), first, stop = piece
            inner = out[:, :, y1 * sx : y2 * sx, x1 * sy : x2 * sy].unfold(-1, length, sz)
            # Neighbouring slabs overlap, so they are added by separate calls.
            apart = -(-length // sz)
            for begin in range(first, min(first + apart, stop)):
                share = result[..., begin - first :: apart, :]
                inner[..., begin:stop:apart, :].addcmul_(share, weights[begin:stop:apart])
            done += (stop - first) * (y3 - y0) * (x3 - x0)
            report_progress(done / (depth * sum(pixels)))
        return out[..., outside : outside + sz * depth]

    def _compute_weights(self, depth: int, device: torch.device) -> torch.Tensor:
        """Weights ``(depth, n)`` in the volume of the output slices that each slab contributes."""
        weights = torch.empty((depth, len(self.weights)), device=device)
        for o, weight in enumerate(self.weights):
            weights[:, o] = weight
        # The first and the last slab have no outer neighbour to share slices with.
        centre = self.weights.index(1.0)
        weights[0, :centre] = 1
        weights[-1, centre + 1 :] = 1
        return weights[:, self.used]

    def _list_spans(self, length: int) -> list[_Span]:
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


class AxesInferer(Inferer):
    """Runs an inferer with each of several axes of a volume as the last, and averages the results.

    A slab network sees little along its last axis. If the factor is the same along every axis, slabs may run across any
    axis, and the mean of three results has seen every direction in plane. With ``mirrored`` the volume, mirrored along
    all axes, is super-resolved too. LR voxel i lies on HR voxel f i + o, but on f i + f - 1 - o in the mirror image, so
    its result is moved by f - 1 - 2 o voxels. Voxels that are then missing at the border are those of the other result.

    Args:
        inferer: runs the network over a volume, slab by slab along the last axis.
        axes: axes (0, 1, 2) of the volume that run across the slabs in turn; None for all with ``any_axis``, else 2.
        any_axis: whether the network accepts slabs across any axis.
        pass_axis: whether the network takes the axis as its second argument.
        mirrored: whether mirror images are averaged too.
        offset: o along each axis, as in the degradation; f - 1 - 2 o must be a whole number of at least 0.
    """

    def __init__(
        self,
        inferer: Inferer,
        axes: Sequence[int] | None = None,
        any_axis: bool = True,
        pass_axis: bool = False,
        mirrored: bool = False,
        offset: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        super().__init__()
        every = (0, 1, 2) if any_axis else (2,)
        self.axes = every if axes is None else tuple(axes)
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(f"AxesInferer: axes must be distinct spatial axes out of 0, 1, 2, got {axes}.")
        self.inferer = inferer
        self.pass_axis = pass_axis
        self.mirrored = mirrored
        self.offset = tuple(offset)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The mean of the inferer's results on ``(B, 1, X, Y, Z)``."""
        volume = remove_metadata(inputs)
        total: Any = None
        count = 0
        for copy in self._run_copies(volume, network, *args, **kwargs):
            total = copy.contiguous() if total is None else total.add_(copy)
            count += 1
            del copy  # frees its memory before the next one
        return total if count == 1 else total.div_(count)

    def _run_copies(
        self, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """Yield the results that are averaged."""
        count = len(self.axes) * (1 + self.mirrored)
        for i, axis in enumerate(self.axes):
            order = [0, 1, *(2 + a for a in range(3) if a != axis), 2 + axis]
            inverse = [order.index(j) for j in range(5)]
            passed = (axis,) if self.pass_axis else ()

            def run_inferer(voxels: torch.Tensor, order=order, inverse=inverse, passed=passed) -> torch.Tensor:
                result = self.inferer(voxels.permute(order).contiguous(), network, *passed, *args, **kwargs)
                return result.permute(inverse)

            with begin_part(i * (1 + self.mirrored), count):
                result = run_inferer(volume)
            yield result.clone() if self.mirrored else result
            if self.mirrored:
                with begin_part(2 * i + 1, count):
                    mirror_image = run_inferer(volume.flip(_SPATIAL)).flip(_SPATIAL)
                yield self._shift_mirrored(mirror_image, volume.shape[2:], result)
                del mirror_image
            del result  # frees its memory before the next one

    def _shift_mirrored(self, mirror_image: torch.Tensor, lr_size: Sequence[int], plain: torch.Tensor) -> torch.Tensor:
        """Move a mirror image's result, mirrored back, to its position in the volume, with the border of ``plain``."""
        steps = [n // k - 1 - 2 * o for n, k, o in zip(plain.shape[2:], lr_size, self.offset, strict=True)]
        if any(step < 0 or step != round(step) for step in steps):
            raise ValueError(
                f"mirrored moves results by whole voxels, but with offset {list(self.offset)} they must move by "
                f"{steps}. Leave mirrored out."
            )
        sizes = plain.shape[2:]
        there: Any = (..., *(slice(round(step), n) for step, n in zip(steps, sizes, strict=True)))
        here: Any = (..., *(slice(n - round(step)) for step, n in zip(steps, sizes, strict=True)))
        plain[here] = mirror_image[there]
        return plain
