"""Volumes held ready for training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset
from tqdm import tqdm


def root_cause(error: BaseException) -> str:
    """What first went wrong, in one line: MONAI wraps the errors of its transforms in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else ""
    # The messages of this collection stand by themselves; others need the name of what happened.
    if not isinstance(error, (ValueError, FileNotFoundError)):
        message = f"{type(error).__name__}: {message}"
    return message


def failure(case: str, reason: str) -> str:
    """A line for a list of failures: the case, unless the reason begins with it, and the reason."""
    return reason if reason.startswith(f"{case}:") else f"{case}: {reason}"


def case_name(item: Mapping[str, Any]) -> str:
    """The files of a datalist's entry, for messages."""
    return ", ".join(str(item[key]) for key in ("hr", "lr", "image") if key in item)


def case_stem(path: str | os.PathLike, subject: str | None = None) -> str:
    """What the results of a case are named by: its file's name, after its subject where the name does not say it."""
    name = Path(path).name
    for ending in (".gz", ".nii", ".img", ".hdr", ".mgz", ".mgh"):
        name = name.removesuffix(ending)
    return name if subject is None or subject in name else f"{subject}_{name}"


class VolumeCache(Dataset):
    """Every volume of a group, preprocessed once and kept in memory as plain tensors.

    ``affines`` has for each volume the voxel-to-world affines (4, 4) of its keys, where they are known.

    Args:
        data: entries of a datalist.
        transform: gives a dictionary of channel-first volumes.
        keys: of the volumes that are kept.
        device: where they are kept where they fit; else they stay in main memory, and a patch is moved when it is cut.

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
        failures: list[str] = []
        for entry in tqdm(self.data, desc="volumes", unit="volume", leave=False):
            try:
                item = transform(dict(entry))
                self.items.append(
                    {key: convert_to_tensor(item[key], track_meta=False).float().contiguous() for key in keys}
                )
                known = {key: getattr(item[key], "affine", None) for key in keys}
                self.affines.append({key: np.asarray(a, np.float64) for key, a in known.items() if a is not None})
            except Exception as error:
                failures.append(failure(case_name(entry), root_cause(error)))
        if failures:
            raise ValueError("these volumes cannot be used:\n  " + "\n  ".join(failures))
        device = torch.device(device)
        if device.type == "cuda":
            needed = sum(v.numel() * v.element_size() for item in self.items for v in item.values())
            free, _ = torch.cuda.mem_get_info(device)
            # Half of what is free stays for training.
            if needed < free / 2:
                self.items = [{k: v.to(device) for k, v in item.items()} for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.items[index]
