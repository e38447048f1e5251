"""Scans with guides of another contrast."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose
from torch import nn

from ...degradations import Degradation
from ...physics.scale import in_plane
from ...transforms import LoadScand, ResampleGuided, ShiftGuided, StageTargetd
from ...values import is_true
from ..lists.datalist import only_case
from ..loaders.slices import SliceLoader
from ..loaders.volumes import VolumeCache
from .base import Sets


class Guided(Sets):
    """Scans in plane, each with a guide of the same subject, for methods that learn from HR or from the scans alone.

    Args:
        hr_patch: pixels along the edge of an HR patch.
        margin: pixels around it that its degradation needs.
        guided: whether there are guides. Without, a batch's "guide" has no channel.
        target: makes HR from a scan, and given HR is ignored; None to learn from HR.
        group: to learn from, "source" or "target"; with ``case`` any.
        angle_step: patches are turned by multiples of this, in degrees.
        scales: factors by which patches may be rescaled.
        register: whether guides are registered to their scans, see :class:`common.transforms.ResampleGuided`.
        registration_error: millimetres by which guides are moved along each axis.
        guide_shift: pixels by which the guide of a patch may be moved.
        contrasts: pairs of contrasts of HR scan and guide. Each scan is used once for each pair. File names are those
            of the first pair, with its contrasts replaced.
        case: number, from 0, of the only scan of ``group`` for training, validation and test; None for all.
        degradation, options: as for :class:`Sets`.

    Raises:
        ValueError: for a degradation that does not act in plane only.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {
        "subjects": 10,
        "contrasts": "t1w,t2w",
        "spacing": 1.5,
        "datalist": {"hr": "*/*_t2w.nii.gz", "guide": "*/*_t1w.nii.gz", "split": [0, 7, 1, 2]},
    }
    batch_keys = ("hr", "hr_context", "guide")

    def __init__(
        self,
        *,
        degradation: Degradation,
        hr_patch: int,
        margin: int,
        guided: bool | str = True,
        target: StageTargetd | None = None,
        group: str = "target",
        angle_step: int = 90,
        scales: Sequence[float] = (1.0,),
        register: bool | str = False,
        registration_error: float = 0.0,
        guide_shift: float = 0.0,
        contrasts: Sequence[Sequence[str]] | None = None,
        case: int | None = None,
        **options: Any,
    ) -> None:
        in_plane(scale=degradation.factors)
        if group == "source":
            listed = {**self.SIMULATED["datalist"], "split": [5, 0, 1, 2]}
            options["simulated"] = {"subjects": 8, "datalist": listed, **(options.get("simulated") or {})}
        super().__init__(degradation=degradation, **options)
        self.guides = ["guide"] if is_true(guided, "guided") else []
        self.target, self.group, self.contrasts, self.case = target, group, contrasts, case
        self._register, self._registration_error = register, registration_error
        self._patches |= {
            "patch": hr_patch,
            "margin": margin,
            "angles": range(0, 360, angle_step),
            "scales": scales,
            "guide_shift": guide_shift,
            "group": group,
        }

    def at_stage(self, stage: int, network: nn.Module) -> Guided:
        """The same scans for another stage of a cascade, with new volumes.

        Args:
            stage: from 1.
            network: the cascade, with the weights of the earlier stages.

        Raises:
            ValueError: for a later stage of a method that learns from HR.
        """
        if self.target is None and stage > 1:
            raise ValueError(f"stage is {stage}, expected at most 1 for learning from HR: set --cascade 1.")
        other = copy.copy(self)
        for name in ("train", "batches", "validation"):
            other.__dict__.pop(name, None)
        other.target = None if self.target is None else self.target.at_stage(stage, network)
        return other

    @cached_property
    def load(self) -> Compose:
        """Reads an entry: "hr" and "lr", and "guide" on the grid of HR."""
        guide = [
            ShiftGuided("guide", millimetres=self._registration_error),
            ResampleGuided(
                "guide",
                reference="lr",
                degradation=self.degradation,
                register=self._register,
                quality_dir=self.output_dir,
            ),
        ]
        read, degraded = self.scans()
        read_guide = LoadScand("guide", ordered=False, allow_missing_keys=True)
        return Compose([read, read_guide, degraded, *(guide if self.guides else [])])

    def _entries(self, group: str) -> list[dict]:
        """Entries of a group, or of the one case."""
        # For learning from HR, LR is always made from it.
        scans = ("hr",) if self.target is None and group == self.group else ("hr", "lr")
        needs = "guide" if self.guides else "hr" if self.target is None else None
        entries = self.listed(group if self.case is None else self.group, (*scans, *self.guides), needs)
        return entries if self.case is None else only_case(entries, self.case)

    def _volumes(self, entries: Sequence[Mapping], keys: Sequence[str]) -> VolumeCache:
        load = self.load if self.target is None else Compose([self.load, self.target])
        return self.cached(entries, load, [*keys, *self.guides], True)

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr" and "guide"."""
        entries = self._entries(self.group)
        if self.contrasts is not None:
            entries = [_with_contrasts(entry, self.contrasts[0], pair) for entry in entries for pair in self.contrasts]
        return self._volumes(entries, ["hr"])

    @cached_property
    def batches(self) -> SliceLoader:
        """Batches of patches, "hr", "hr_context" and "guide"."""
        return _Batches(self.train, **self._patches)

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr", "lr" and "guide"."""
        entries = self._entries("validation") or [e for e in self._entries(self.group) if "hr" in e][:1]
        return self._volumes(entries, ["hr", "lr"])

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr", "lr" and "guide"."""
        return Dataset(self._entries("test"), self.load)


class _Batches(SliceLoader):
    """Batches whose guide has no channel if the volumes have no guide."""

    def _batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super()._batch(samples)
        return {**batch, "guide": batch.get("guide", batch["hr"][:, :0])}


def _with_contrasts(entry: Mapping[str, str], before: Sequence[str], pair: Sequence[str]) -> dict[str, str]:
    """An entry with other contrasts of the same subject."""
    keys = zip(("hr", "guide"), before, pair, strict=True)
    return {**entry, **{key: entry[key].replace(old, new) for key, old, new in keys if key in entry}}
