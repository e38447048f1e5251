"""Batches on their device, with at most one copy from main memory to a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

_ALIGNED = 16  # bytes; a multiple of every type's size


def stacked(tensors: Mapping[str, Sequence[torch.Tensor]], device: torch.device) -> dict[str, torch.Tensor]:
    """Stack tensors by name on a device.

    Tensors that are on the device are stacked there. The others are moved together, in one asynchronous copy from
    pinned memory.

    Args:
        tensors: for each name tensors of one shape, one type and one device.
        device: of the stacks.

    Returns:
        For each name ``(number, ...)``.
    """
    away = {name: parts for name, parts in tensors.items() if parts[0].device.type != device.type}
    batch = {name: torch.stack(list(parts)) for name, parts in tensors.items() if name not in away}
    if not away:
        return batch
    shapes = {name: (len(parts), *parts[0].shape) for name, parts in away.items()}
    first, size = {}, 0
    for name, parts in away.items():
        first[name] = size
        length = len(parts) * parts[0].numel() * parts[0].element_size()
        size += -(-length // _ALIGNED) * _ALIGNED

    def part(buffer: torch.Tensor, name: str) -> torch.Tensor:
        values = buffer[first[name] :].view(away[name][0].dtype)
        return values[: torch.Size(shapes[name]).numel()].view(shapes[name])

    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    for name, parts in away.items():
        torch.stack(list(parts), out=part(buffer, name))
    buffer = buffer.to(device, non_blocking=True)
    return batch | {name: part(buffer, name) for name in away}
