"""Volumes held ready for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset

from ...runtime import progress
from ..case import Case


class VolumeCache(Dataset):
    """Every volume of a group, preprocessed once and kept in memory as plain tensors.

    ``affines`` holds the known voxel-to-world affines (4, 4) of each volume, by key.

    Args:
        data: entries of a datalist.
        transform: gives a dictionary of channel-first volumes.
        keys: of the volumes that are kept.
        device: where volumes are kept if they fit; else they stay in main memory, and batches are moved.

    Raises:
        ValueError: when any volume cannot be prepared, with every such file and the reason.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Any],
        keys: Sequence[str],
        device: torch.device | str = "cpu",
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.items: list[dict[str, torch.Tensor]] = []
        self.affines: list[dict[str, np.ndarray]] = []
        cases = [Case(dict(entry)) for entry in self.data]
        with progress.shown("preparing volumes"):
            for i, case in enumerate(cases):
                with case.catch():
                    with progress.part(i, len(cases)):
                        item = transform(dict(case))
                    self.items.append(
                        {key: convert_to_tensor(item[key], track_meta=False).float().contiguous() for key in keys}
                    )
                    known = {key: getattr(item[key], "affine", None) for key in keys}
                    self.affines.append({key: np.asarray(a, np.float64) for key, a in known.items() if a is not None})
        if failures := [case.failure for case in cases if case.problem is not None]:
            raise ValueError("these volumes cannot be used:\n  " + "\n  ".join(failures))
        device = torch.device(device)
        if device.type == "cuda":
            needed = sum(v.numel() * v.element_size() for item in self.items for v in item.values())
            free, _ = torch.cuda.mem_get_info(device)
            # Half of the free memory is left for training.
            if needed < free / 2:
                self.items = [{k: v.to(device) for k, v in item.items()} for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.items[index]

    def keep_by_slice(self) -> None:
        """Store volumes slice by slice in memory, to read few slices at a time; sizes and values do not change."""
        for item in self.items:
            for key, volume in item.items():
                item[key] = volume.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
