"""Volumes held ready for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset

from ...io.naming import format_failure
from ...runtime.progress import make_bar
from ...transforms.scan.scan_statistics import compute_scan_statistics


def try_each(data: Sequence[Mapping[str, Any]], read: Callable[[dict[str, Any]], Any]) -> None:
    """Read each entry of a datalist.

    Args:
        data: the entries.
        read: reads a copy of one.

    Raises:
        ValueError: at the end, if some cannot be read, with each reason.
    """
    failures = []
    for entry in make_bar(data, "preparing volumes"):
        try:
            read(dict(entry))
        except Exception as error:
            failures.append(format_failure(entry, error))
    if failures:
        raise ValueError("these volumes cannot be used:\n  " + "\n  ".join(failures))


class VolumeCache(Dataset):
    """Every volume of a group, preprocessed once and kept in memory as plain tensors.

    Volumes are read when they are first asked for.

    Args:
        data: entries of a datalist.
        transform: gives a dictionary of channel-first volumes.
        keys: of the volumes that are kept.
        allow_missing_keys: whether volumes may lack keys.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Any],
        keys: Sequence[str] = ("hr", "lr"),
        allow_missing_keys: bool = False,
    ) -> None:
        self.data, self.transform, self.keys, self.device = data, transform, keys, torch.device("cpu")
        self.allow_missing_keys = allow_missing_keys

    def to(self, device: torch.device | str) -> None:
        """Keep volumes on this device when they are read, if they fit; else batches are moved."""
        self.device = torch.device(device)

    def forget(self) -> None:
        """Read the volumes again when they are next asked for, because the transform gives others."""
        self.__dict__.pop("_contents", None)

    @cached_property
    def _contents(self) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, np.ndarray]], list[dict]]:
        """The volumes, their affines, and the statistics of LR."""
        items: list[dict[str, torch.Tensor]] = []
        affines: list[dict[str, np.ndarray]] = []
        statistics: list[dict] = []

        def keep(entry: Mapping[str, Any]) -> None:
            item = self.transform(entry)
            keys = [key for key in self.keys if key in item or not self.allow_missing_keys]
            items.append({key: convert_to_tensor(item[key], track_meta=False).float().contiguous() for key in keys})
            known = {key: getattr(item[key], "affine", None) for key in keys}
            affines.append({key: np.asarray(a, np.float64) for key, a in known.items() if a is not None})
            if hasattr(lr := item.get("lr"), "affine"):
                statistics.append(compute_scan_statistics(lr, lr.affine))

        try_each(self.data, keep)
        if self.device.type == "cuda":
            needed = sum(v.numel() * v.element_size() for item in items for v in item.values())
            free, _ = torch.cuda.mem_get_info(self.device)
            # Half of the free memory is left for training.
            if needed < free / 2:
                items = [{k: v.to(self.device) for k, v in item.items()} for item in items]
        return items, affines, statistics

    @property
    def volumes(self) -> list[dict[str, torch.Tensor]]:
        """The volumes ``(C, X, Y, Z)`` of each entry, by key."""
        return self._contents[0]

    @property
    def affines(self) -> list[dict[str, np.ndarray]]:
        """The known voxel-to-world affines (4, 4) of each entry's volumes, by key."""
        return self._contents[1]

    @property
    def statistics(self) -> list[dict[str, list[float]]]:
        """Statistics of each volume "lr" that the transform gives, kept or not.

        See :func:`common.transforms.compute_scan_statistics`.
        """
        return self._contents[2]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.volumes[index]

    def keep_by_slice(self) -> None:
        """Store volumes slice by slice in memory, to read few slices at a time; sizes and values do not change."""
        for item in self.volumes:
            for key, volume in item.items():
                item[key] = volume.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
