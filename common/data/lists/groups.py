"""The groups of a datalist, as the data of MONAI's datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...io.naming import SIMULATED
from .datalist import SCANS, check_misaligned, load_datalist, load_fold, select_case


def choose_default_slice_axis(dataset_dir: str | None, factors: Sequence[float] = ()) -> str:
    """The axis across the slices where the user gives none.

    Args:
        dataset_dir: folder with ``dataset.json``; None if it is not known yet.
        factors: of a super-resolution along any axis; if all are equal, the axis does not matter.

    Returns:
        "SI" for simulated heads and for equal factors, else "auto", by the voxels of each scan.
    """
    # The voxels of simulated heads are cubes, which do not show the axis.
    if dataset_dir is None or (factors and len(set(factors)) == 1) or is_simulated(dataset_dir):
        return "SI"
    return "auto"


def is_simulated(dataset_dir: str) -> bool:
    """Whether a folder holds simulated heads."""
    return Path(dataset_dir, SIMULATED).is_file()


class Datalist:
    """A ``dataset.json``; read when a group is first asked for.

    Args:
        dataset_dir: folder with ``dataset.json``.
        fold: number of the fold of a cross-validation that is held out, from 0; None to use the groups. The subjects
            of all groups except validation are divided.
        folds: number of folds.
        misaligned: whether HR of the source is moved at random; source and target must then have the same subjects.

    Attributes:
        held_out: the fold, such as "0 of 4", or None; a resumed training must hold out the same.
    """

    def __init__(
        self, dataset_dir: str | None, fold: int | None = None, folds: int = 4, misaligned: bool = False
    ) -> None:
        self._dataset_dir = dataset_dir
        self.fold, self.folds, self.misaligned = fold, folds, misaligned
        self.held_out = None if fold is None else f"{fold} of {folds}"

    @property
    def is_simulated(self) -> bool:
        """Whether the scans are simulated."""
        return self._dataset_dir is not None and is_simulated(self._dataset_dir)

    @cached_property
    def dataset_dir(self) -> str:
        """Folder with ``dataset.json``."""
        if self._dataset_dir is None:
            raise ValueError(
                "dataset_dir is null, expected the folder of a dataset.json: give --dataset_dir D, or add the bundle's "
                "demo.json to --config_file for simulated heads."
            )
        check_misaligned(self._dataset_dir, self.misaligned)
        return self._dataset_dir

    def read(
        self, group: str, kinds: str | Sequence[str] = SCANS, needs: str | None = None, optional: bool = False
    ) -> list[dict]:
        """Entries of a group, as :func:`~common.data.lists.datalist.load_datalist`, or of the fold.

        In a cross-validation, "test" is the held-out part of the fold. Other groups, except validation, are the rest.
        """
        if self.fold is None or group == "validation":
            return load_datalist(self.dataset_dir, group, kinds, needs, optional or self.fold is not None)
        return load_fold(self.dataset_dir, self.folds, self.fold, group == "test", kinds, needs)


class Group(Sequence):
    """The entries of one group of a datalist; read when they are first asked for.

    Args:
        datalist: the datalist.
        name: "source", "target", "validation" or "test".
        kinds, needs, optional: as for :func:`~common.data.lists.datalist.load_datalist`.
        folded: whether, in a cross-validation without validation entries, the first training entry with HR is used.
        copies: number of times that an entry without its own LR is listed.
        guided: whether every entry needs its guide, which is then one of the kinds.
        case: number, from 0, of the only entry; None for all.
        case_group: the group that such an entry is of; default ``name``.
        select: makes other entries of those in the list, such as :func:`~common.data.lists.datalist.select_lr`.
    """

    def __init__(
        self,
        datalist: Datalist,
        name: str,
        kinds: str | Sequence[str] = SCANS,
        needs: str | None = None,
        optional: bool = False,
        folded: bool = True,
        copies: int = 1,
        guided: bool = False,
        case: int | None = None,
        case_group: str | None = None,
        select: Callable[[list[dict]], list[dict]] = list,
    ) -> None:
        self.datalist, self.kinds, self.needs, self.optional = datalist, kinds, needs, optional
        self.name = name if case is None else case_group or name
        self.folded, self.copies, self.case, self.select = folded, copies, case, select
        if guided:
            self.kinds, self.needs = [*([kinds] if isinstance(kinds, str) else kinds), "guide"], "guide"

    @cached_property
    def entries(self) -> list[dict]:
        """The entries."""
        listed = self.datalist.read(self.name, self.kinds, self.needs, self.optional)
        if not listed and self.folded and self.datalist.fold is not None:
            listed = [entry for entry in self.datalist.read("source", self.kinds) if "hr" in entry][:1]
        listed = self.select(listed if self.case is None else select_case(listed, self.case))
        return [entry for entry in listed for _ in range(1 if "lr" in entry else self.copies)]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        return self.entries[index]
