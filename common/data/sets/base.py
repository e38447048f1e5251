"""What all sets of volumes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset

from ...degradations import Degradation
from ...transforms import LoadScand, MakeLRd
from ..lists.datalist import SCANS, cross_validation, load_datalist
from ..loaders.volumes import VolumeCache
from ..simulation.cohort import simulated_cohort, slice_axis_in


def heads(subjects: int, split: Sequence[float], **options: Any) -> dict[str, Any]:
    """Arguments of a simulated cohort of T1w heads, in these shares of the groups."""
    return {"subjects": subjects, "contrasts": "t1w", "datalist": {"hr": "*/*_t1w.nii.gz", "split": split}, **options}


class Sets:
    """Volumes for training, validation and test, read when they are first asked for.

    Each kind of sets has ``train``, ``batches``, ``validation`` and ``test``; ``batch_keys`` are the names of what a
    batch holds, and ``validates`` says whether there is anything to validate with.

    Args:
        dataset_dir: folder with ``dataset.json``; None for a cohort that is simulated in ``output_dir/data``.
        output_dir: folder of the run, which a trainer takes too.
        simulated: arguments of :func:`common.data.simulation.cohort.simulated_cohort` that differ from the kind's own.
        degradation: from HR to LR, whose grids the network has.
        slice_axis: axis across the slices, "LR", "AP", "SI" or "auto"; None for "auto", or for that of simulated heads.
        folds: of a cross-validation over the subjects of all groups but validation; None for the groups as they are.
        fold: that is held out, from 0.
        device: where volumes for training are kept, and where a trainer trains.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {}
    batch_keys: Sequence[str] = ("hr", "lr")
    validates = True
    scan_degradation: Degradation  # that makes LR of HR

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        simulated: Mapping[str, Any] | None,
        degradation: Degradation,
        slice_axis: str | None = None,
        folds: int | None = None,
        fold: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._dataset_dir, self.output_dir = dataset_dir, output_dir
        self._simulated = {**self.SIMULATED, **(simulated or {})}
        self._slice_axis, self._folds, self._fold = slice_axis, folds, fold
        self.degradation, self.device = degradation, device
        self.scale, self.offset = list(degradation.factors), list(degradation.offset)

    @cached_property
    def dataset_dir(self) -> str:
        """Folder with ``dataset.json``; a cohort is simulated where none was given."""
        if self._dataset_dir is None:
            return simulated_cohort(f"{self.output_dir}/data", **self._simulated)
        return self._dataset_dir

    @cached_property
    def slice_axis(self) -> str:
        """Axis across the slices."""
        return self._slice_axis or slice_axis_in(self.dataset_dir)

    def listed(
        self,
        group: str,
        kinds: str | Sequence[str] = SCANS,
        needs: str | None = None,
        optional: bool = False,
    ) -> list[dict]:
        """Entries of a group, as :func:`~common.data.lists.datalist.load_datalist`; or of the fold in its place.

        Of a cross-validation, "test" is what the fold holds out, and any other group but validation all the rest; where
        validation is empty, the first scan that trains validates.
        """
        if self._folds is None:
            return load_datalist(self.dataset_dir, group, kinds, needs, optional)
        if group == "validation":
            return load_datalist(self.dataset_dir, group, kinds, needs, True)
        return cross_validation(self.dataset_dir, self._folds, self._fold, group == "test", kinds, needs)

    def scans(self) -> list[Callable]:
        """Steps that read HR and LR of an entry; LR is made of HR where it is not there."""
        return [
            LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True),
            MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation, allow_missing_keys=True),
        ]

    def cached(self, entries: Sequence[Mapping], load: Callable, keys: Sequence[str], training: bool) -> VolumeCache:
        """Volumes held ready; those for training where it trains."""
        return VolumeCache(entries, load, keys, self.device if training else "cpu")

    def as_read(self, entries: Sequence[Mapping], load: Callable) -> Dataset:
        """Volumes that are read one by one."""
        return Dataset(entries, load)
