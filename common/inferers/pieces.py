"""Run a network over pieces of a volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ..runtime.progress import report
from ..runtime.workers import side_by_side

# Memory of the activations per pixel: 64 features of 16 layers of an RDN, and as much for temporary tensors.
_PIXEL_BYTES = 8192


def over_pieces(
    network: Callable[..., torch.Tensor], pieces: Sequence[torch.Tensor], *args: Any, **kwargs: Any
) -> Iterator[torch.Tensor]:
    """Yield the network's result for each piece, in order, as float32; a CPU works on several at once.

    Args:
        network: called with a piece and the further arguments.
        pieces: images or slices ``(b, ...)``, on one device, at least one.
    """
    size = max(piece.numel() for piece in pieces) * _PIXEL_BYTES

    def work(piece: torch.Tensor) -> torch.Tensor:
        return network(piece.contiguous(), *args, **kwargs).float()

    for i, result in enumerate(side_by_side(work, pieces, pieces[0].device, size)):
        yield result
        report((i + 1) / len(pieces))
