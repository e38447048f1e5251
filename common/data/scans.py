"""The scans that inference is to super-resolve."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import Dataset
from monai.transforms import Compose

from ..degradations import Degradation
from ..physics.scale import across_slices
from ..transforms import (
    CheckMRd,
    CheckThickSlicesd,
    CheckTrainingRanged,
    EvenSlicesd,
    LoadScand,
    NormaliseVolumed,
    check_slice_factor,
)
from ..values import is_true
from .lists.scans import find_images, find_pairs
from .lists.sharding import to_do
from .simulation.cohort import simulated_scan


class Scans(Dataset):
    """The scans of a folder, or one of a file, or a simulated one; those that this process has to do.

    Args:
        dataset_dir: file or folder; None for a scan that is simulated in ``output_dir/scan``.
        slice_axis: axis across the slices, as for :class:`common.transforms.LoadScand`.
        training_range: of the weights, which scans are compared with; None for no comparison.
        thick_slices: scale [1, 1, n] of a method that makes thick slices thin, which refuses other scans; None for any.
        transform: reads an entry, in the place of what ``slice_axis`` and ``training_range`` say.
        contrast: of the simulated scan.
        lr: pattern of the scans' files where each has a guide.
        guide: pattern of the guides' files; None for scans without guides.
        subject: pattern of the part of a path that tells the subject; see :func:`common.data.find_pairs`.
        skip_existing: whether scans are left out whose results are there whole.
        shard: such as "3/16", the share of the scans that is done here; None for all.
        bids: whether results are named as BIDS derivatives.
        data: entries, in the place of those that are found.

    Raises:
        ValueError: when ``thick_slices`` is no such scale.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        slice_axis: str = "auto",
        training_range: Mapping[str, Sequence[float]] | None = None,
        thick_slices: Sequence[float] | None = None,
        transform: Callable | None = None,
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
        self._place = (dataset_dir, contrast, lr, guide, subject, is_true(skip_existing, "skip_existing"))
        read = [
            LoadScand("image", slice_axis=slice_axis),
            CheckTrainingRanged("image", training_range=training_range),
        ]
        if thick_slices is not None:
            thinner = across_slices(whole=False, scale=thick_slices)
            read.insert(1, CheckThickSlicesd("image", scale=thinner))
        super().__init__([] if data is None else data, transform or Compose(read))
        self._found = data is not None

    def find(self, output_dir: str, degradation: Degradation) -> None:
        """Find what is to be done, unless the entries were given.

        Args:
            output_dir: folder of the results.
            degradation: from HR to a scan, of which a simulated one is made.
        """
        if self._found:
            return
        dataset_dir, contrast, lr, guide, subject, skip = self._place
        if dataset_dir is None:
            dataset_dir = simulated_scan(f"{output_dir}/scan", degradation, contrast, None if guide is None else "t1w")
        found = find_images(dataset_dir) if lr is None else find_pairs(dataset_dir, lr, guide, subject)
        self.data = to_do(found, output_dir, skip, self.shard, self.bids)
        self._found = True


class ThickScans(Scans):
    """:class:`Scans` of thick-slice MR, whose slices must fit the scale; those that alternate in brightness are evened.

    Args:
        dataset_dir: as for :class:`Scans`.
        scale: ``[1, 1, n]``, n thin slices for each thick one.
        slice_axis, training_range: as for :class:`Scans`.
        check_mr: whether scans are refused whose values look like those of CT.
        even_slices: whether slices that alternate in brightness are evened out.
        models: folder of weights with their overlays; a message names the one that fits a scan better.
        options: further ones of :class:`Scans`.

    Raises:
        ValueError: for any other scale.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        scale: Sequence[int],
        slice_axis: str = "auto",
        training_range: Mapping[str, Sequence[float]] | None = None,
        check_mr: bool | str = True,
        even_slices: bool | str = True,
        models: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        factor = across_slices(scale=scale)
        check_slice_factor(factor)
        read = [
            LoadScand("image", slice_axis=slice_axis, normalise=False),
            *([CheckMRd("image")] if is_true(check_mr, "check_mr") else []),
            NormaliseVolumed("image"),
            *([EvenSlicesd("image")] if is_true(even_slices, "even_slices") else []),
            CheckThickSlicesd("image", scale=factor, models=models),
            CheckTrainingRanged("image", training_range=training_range),
        ]
        super().__init__(dataset_dir, **{"transform": Compose(read), **options})
