"""The scans that inference is to super-resolve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import Dataset

from ..command_line import is_true
from ..degradations import Degradation
from ..files import check_writable
from .lists.scans import find_images, find_pairs
from .lists.shares import to_do
from .simulation.cohort import simulated_scan


class Scans(Dataset):
    """The scans of a folder, or one of a file, or a simulated one; those that this process has to do.

    Args:
        dataset_dir: file or folder; None for a scan that is simulated in ``output_dir/scan``.
        transform: reads an entry.
        output_dir: folder of the results.
        degradation: from HR to the simulated scan.
        contrast: of the simulated scan.
        lr: pattern of the scans' files where each has a guide.
        guide: pattern of the guides' files; None for scans without guides.
        subject: pattern of the part of a path that tells the subject; see :func:`common.data.find_pairs`.
        skip_existing: whether scans are left out whose results are there whole.
        shard: such as "3/16", the share of the scans that is done here; None for all.
        bids: whether results are named as BIDS derivatives.
        data: entries, in the place of those that are found.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        transform: Callable,
        output_dir: str,
        degradation: Degradation,
        contrast: str = "t1w",
        lr: str | None = None,
        guide: str | None = None,
        subject: str | None = None,
        skip_existing: bool | str = False,
        shard: str | None = None,
        bids: bool | str = False,
        data: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.bids, self.shard = is_true(bids, "bids"), shard
        if data is None:
            check_writable(output_dir)
            place = dataset_dir or simulated_scan(
                f"{output_dir}/scan", degradation, contrast, None if guide is None else "t1w"
            )
            found = find_images(place) if lr is None else find_pairs(place, lr, guide, subject)
            data = to_do(found, output_dir, is_true(skip_existing, "skip_existing"), shard, self.bids)
        super().__init__(data, transform)
