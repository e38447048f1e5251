"""What an evaluator gives its network of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def prepare_lr_hr(
    batchdata: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor | None] | tuple[torch.Tensor, torch.Tensor | None, tuple, dict]:
    """The ``prepare_batch`` of cases: the scan is the input, HR the truth, a guide or further stacks a second input.

    Args:
        batchdata: with the scan as "lr", or else as "image"; optionally "hr", "guide", "stacks" (further scans of an
            exam) and "contrasts" (lists of the scans of its other contrasts).
        device, non_blocking: as for ``torch.Tensor.to``.

    Returns:
        The scan, and HR or None. With a guide also ``(guide,)`` and ``{}``, the further arguments of the network. With
        stacks ``(stacks,)``, and guide and contrasts by name.
    """

    def to_device(key: str) -> Any:
        return batchdata[key].to(device, non_blocking=non_blocking) if key in batchdata else None

    pair = to_device("lr" if "lr" in batchdata else "image"), to_device("hr")
    if "stacks" in batchdata:
        stacks, *contrasts = (
            [stack.to(device, non_blocking=non_blocking) for stack in each]
            for each in (batchdata["stacks"], *batchdata.get("contrasts", ()))
        )
        named = {"guide": to_device("guide")} if "guide" in batchdata else {}
        return (*pair, (stacks,), named | ({"contrasts": contrasts} if contrasts else {}))
    return (*pair, (to_device("guide"),), {}) if "guide" in batchdata else pair
