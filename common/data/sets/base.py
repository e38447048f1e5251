"""The base class of all sets of volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

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

    Subclasses also have ``train`` and ``batches``; ``batch_keys`` are the keys of a batch.

    Args:
        dataset_dir: folder with ``dataset.json``; None for a cohort that is simulated in ``output_dir/data``.
        output_dir: folder of the run, also used by trainers.
        degradation: from HR to LR, with the network's grids.
        batch_size: patches in a batch.
        scan_degradation: makes LR from HR on the same grids; default ``degradation``.
        seed: of random draws.
        slice_axis: axis across the slices, "LR", "AP", "SI" or "auto"; None for "auto", or for that of simulated heads.
        simulated: arguments of :func:`common.data.simulation.cohort.simulated_cohort` that replace the defaults of the
            subclass.
        fold: number of the fold of a cross-validation that is held out, from 0; None to use the groups. The subjects
            of all groups except validation are divided.
        folds: number of folds.
        device: where volumes for training and validation are kept, and where a trainer trains.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {}
    batch_keys: Sequence[str] = ("hr", "lr")
    may_lack_validation = False  # whether there is no validation if the validation group has no HR

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        degradation: Degradation,
        batch_size: int,
        scan_degradation: Degradation | None = None,
        seed: int = 0,
        slice_axis: str | None = None,
        simulated: Mapping[str, Any] | None = None,
        fold: int | None = None,
        folds: int = 5,
        device: torch.device | str = "cpu",
    ) -> None:
        self._dataset_dir, self.output_dir = dataset_dir, output_dir
        self._simulated = {**self.SIMULATED, **(simulated or {})}
        self._slice_axis, self._fold, self._folds = slice_axis, fold, folds
        self.degradation, self.scan_degradation = degradation, scan_degradation or degradation
        self.seed, self.device = seed, device
        self._patches: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "device": device}
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
        """Entries of a group, as :func:`~common.data.lists.datalist.load_datalist`, or of the fold.

        In a cross-validation, "test" is the held-out part of the fold. Other groups, except validation, are the rest.
        """
        if self._fold is None:
            return load_datalist(self.dataset_dir, group, kinds, needs, optional)
        if group == "validation":
            return load_datalist(self.dataset_dir, group, kinds, needs, True)
        return cross_validation(self.dataset_dir, self._folds, self._fold, group == "test", kinds, needs)

    def scans(self) -> list[Callable]:
        """Steps that read HR and LR of an entry; missing LR is made from HR."""
        return [
            LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True),
            MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation, allow_missing_keys=True),
        ]

    @cached_property
    def load(self) -> Compose:
        """Reads an entry."""
        return Compose(self.scans())

    def cached(self, entries: Sequence[Mapping], load: Callable, keys: Sequence[str], on_device: bool) -> VolumeCache:
        """Volumes in memory; with ``on_device`` in that of the training device, if they fit."""
        return VolumeCache(entries, load, keys, self.device if on_device else "cpu")

    def validating(self, kinds: str | Sequence[str] = SCANS) -> list[dict]:
        """Entries to validate with; in a cross-validation without any, the first training entry with HR."""
        found = self.listed("validation", kinds, "hr", self.may_lack_validation)
        if found or self._fold is None:
            return found
        return [entry for entry in self.listed("source", kinds) if "hr" in entry][:1]

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate with."""
        return not self.may_lack_validation or bool(self.validating())

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self.validating(), self.load, SCANS, True)

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr" and "lr"."""
        return Dataset(self.listed("test", SCANS, "hr"), self.load)
