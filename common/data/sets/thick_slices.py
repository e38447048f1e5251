"""Scans with thick slices, for methods that make these thin."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ...degradations import Degradation, Interpolated
from ...graph import TensorGraph
from ...physics.scale import across_slices
from ...transforms import (
    CheckMRd,
    CheckThickSlicesd,
    HounsfieldWindowd,
    LoadScand,
    MakeLRd,
    NormaliseVolumed,
    ResampleHRd,
    check_slice_factor,
)
from ...values import is_true
from ..lists.datalist import SCANS, as_hr, only_hr
from ..lists.spacing import slice_axis_of, thin_slice_spacing
from ..loaders.image_pairs import ImagePairLoader
from ..loaders.through_plane import ThroughPlaneLoader, check_patch
from ..loaders.triplets import TripletLoader
from ..loaders.volumes import VolumeCache
from .base import Sets


class ThickSlices(Sets):
    """What these sets have in common: LR is made of HR where it is not there, and its slices must be thick.

    Args:
        dataset_dir, output_dir, degradation, slice_axis, simulated, folds, fold, device: as for :class:`Sets`.
        lr_patch: pixels of a patch; the second is across the slices.
        batch_size: patches in a batch.
        scan_degradation: that makes LR of HR instead, on the same grids; default ``degradation``.
        seed: of the patches that are drawn.

    Raises:
        ValueError: for a degradation that does not act across the slices alone.
    """

    _may_lack_validation = False

    def __init__(
        self,
        dataset_dir: str | None,
        output_dir: str,
        degradation: Degradation,
        lr_patch: Sequence[int],
        batch_size: int,
        scan_degradation: Degradation | None = None,
        seed: int = 0,
        slice_axis: str | None = None,
        simulated: Mapping[str, Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dataset_dir, output_dir, simulated, degradation, slice_axis, folds, fold, device)
        across_slices(scale=self.scale)
        self.scan_degradation = scan_degradation or degradation
        self._patches = {"lr_patch": lr_patch, "batch_size": batch_size, "seed": seed, "device": device}

    @cached_property
    def load(self) -> Compose:
        """Reads an entry."""
        return Compose(
            [
                LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True),
                MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation, allow_missing_keys=True),
                CheckThickSlicesd("lr", scale=self.scale[2]),
            ]
        )

    @property
    def learned_from(self) -> list[dict]:
        """Entries to learn from."""
        raise NotImplementedError(f"{type(self).__name__} must say which entries it learns from.")

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr" and "lr"."""
        return self.as_read(self.listed("test", SCANS, "hr"), self.load)

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        return self.cached(self._validated, self.load, SCANS, False)

    @property
    def _validated(self) -> list[dict]:
        """Entries to validate with; of a cross-validation without such, the first with known HR that it learns from."""
        entries = self.listed("validation", SCANS, "hr", self._may_lack_validation)
        if self._folds is not None and not entries:
            return [entry for entry in self.learned_from if "hr" in entry][:1]
        return entries


class HRImages(ThickSlices):
    """Images of HR volumes, and what is left of them when they are degraded and interpolated.

    Args:
        planes: axes of a volume (X, Y, Z) across which images are taken.
        group: whose HR volumes it learns from, "source" or "target".
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {
        "subjects": 8,
        "contrasts": "t1w",
        "datalist": {"hr": "*/*_t1w.nii.gz", "split": [5, 0, 1, 2]},
    }

    def __init__(self, *, planes: Sequence[int] = (0, 1), group: str = "source", **options: Any) -> None:
        super().__init__(**options)
        self.planes, self.group = planes, group

    @property
    def learned_from(self) -> list[dict]:
        """Entries of the group, with HR."""
        return self.listed(self.group, SCANS, "hr")

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "hr"."""
        return self.cached(self.learned_from, self.load, ["hr"], True)

    @cached_property
    def batches(self) -> ImagePairLoader:
        """Batches of patches, "hr" and "lr"."""
        degradation = Interpolated(self.scan_degradation)
        return ImagePairLoader(self.train, "hr", degradation, planes=self.planes, **self._patches)


class Triplets(ThickSlices):
    """Three slices in a row of LR scans alone; where the validation group is empty, nothing validates.

    Args:
        reach: of images across an axis in plane, largest distance of two neighbours; default half a slice's thickness.
        options: of :class:`ThickSlices`.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {
        "subjects": 8,
        "contrasts": "t1w",
        "datalist": {"hr": "*/*_t1w.nii.gz", "split": [0, 5, 1, 2]},
    }
    _may_lack_validation = True

    def __init__(self, *, reach: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.reach = max(1, round(self.scale[2] / 2)) if reach is None else reach

    @property
    def validates(self) -> bool:  # type: ignore[override]
        """Whether there is anything to validate with."""
        return bool(self._validated)

    @property
    def learned_from(self) -> list[dict]:
        """Entries of the target group."""
        return self.listed("target")

    @cached_property
    def train(self) -> VolumeCache:
        """Volumes to learn from, "lr"."""
        return self.cached(self.learned_from, self.load, ["lr"], True)

    @cached_property
    def batches(self) -> TripletLoader:
        """Batches of patches, as :class:`~common.data.loaders.triplets.TripletLoader` gives them."""
        return TripletLoader(self.train, reach=self.reach, **self._patches)


class CTGuided(ThickSlices):
    """Thick-slice MR, and unpaired HR volumes, CT or others, that teach it; where validation is empty, nothing validates.

    Args:
        kind: of the volumes that teach, "ct" or "hr".
        group: that these are in, "source" or "target".
        attributes: values of an attribute code, as for :class:`~common.data.loaders.through_plane.ThroughPlaneLoader`.
        contrasts, gains, any_axis, zoom: as for that loader.
        window, ct_offset: of CT, as for :class:`common.transforms.HounsfieldWindowd`.
        check_mr: whether MR is refused whose values look like those of CT.
        options: of :class:`ThickSlices`.

    Attributes:
        batch_keys: names of what a batch holds.

    Raises:
        ValueError: for a scale that is not [1, 1, 2] to [1, 1, 6], or another kind.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = {
        "subjects": 10,
        "contrasts": "ct,t1w",
        "datalist": {
            "ct": "*/*_ct.nii.gz",
            "hr": "*/*_t1w.nii.gz",
            "source": "sub-00[1-4]/*_ct.nii.gz",
            "target": "sub-00[5-7]/*_t1w.nii.gz",
            "validation": "sub-008/*_t1w.nii.gz",
            "test": "sub-009/*_t1w.nii.gz,sub-010/*_t1w.nii.gz",
        },
    }
    batch_keys = ("hr", "hr_recoloured", "gains", "lr", "prior_ct", "prior_mr")

    def __init__(
        self,
        *,
        kind: str = "ct",
        group: str = "source",
        attributes: int = 8,
        contrasts: int = 6,
        gains: float = 0.0,
        any_axis: bool | str = False,
        zoom: float = 1.0,
        window: Sequence[float] = (-150, 250),
        ct_offset: float | str = "auto",
        check_mr: bool | str = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_slice_factor(self.scale[2])
        if kind not in ("ct", "hr"):
            raise ValueError(f"kind is {kind!r}, expected ct or hr.")
        self.kind, self.group, self.attributes = kind, group, attributes
        self.any_axis, self.window, self.ct_offset = is_true(any_axis, "any_axis"), window, ct_offset
        self.check_mr = is_true(check_mr, "check_mr")
        self._patches |= {"factor": self.scale[2], "attributes": attributes, "contrasts": contrasts}
        self._patches |= {"gains": gains, "any_axis": self.any_axis, "zoom": zoom}

    @property
    def slice_axis(self) -> str:  # type: ignore[override]
        """Axis across the slices of the scans that weights are for."""
        return "auto" if self.any_axis else self._axis

    @cached_property
    def _axis(self) -> str:
        """That of the scans here."""
        return super().slice_axis

    @property
    def validates(self) -> bool:  # type: ignore[override]
        """Whether there is anything to validate with."""
        return bool(self._validated)

    @property
    def _validated(self) -> list[dict]:
        return self.listed("validation", SCANS, "hr", True)

    @cached_property
    def learned_from(self) -> list[dict]:
        """MR of the target group."""
        return self.listed("target")

    @cached_property
    def load(self) -> Compose:
        """Reads an entry of MR."""
        some = {"keys": SCANS, "allow_missing_keys": True}
        return Compose(
            [
                LoadScand(**some, slice_axis=self._axis, normalise=False),
                *([CheckMRd(**some)] if self.check_mr else []),
                NormaliseVolumed(**some),
                MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation, allow_missing_keys=True),
                CheckThickSlicesd("lr", scale=self.scale[2]),
            ]
        )

    @cached_property
    def load_ct(self) -> Compose:
        """Reads an entry of CT, at the spacing that the MR will have."""
        spacing = thin_slice_spacing(self.learned_from, self._axis, self.scale[2])
        axis = slice_axis_of(self.learned_from, self._axis)
        return Compose(
            [
                LoadScand("hr", slice_axis=axis, normalise=False, set_aside=False),
                HounsfieldWindowd("hr", window=self.window, offset=self.ct_offset),
                ResampleHRd("hr", spacing=spacing),
            ]
        )

    @cached_property
    def source(self) -> VolumeCache:
        """Volumes that teach, "hr"."""
        if self.kind == "ct":
            return self.cached(as_hr(self.listed(self.group, "ct")), self.load_ct, ["hr"], True)
        return self.cached(only_hr(self.listed(self.group)), self.load, ["hr"], True)

    @cached_property
    def train(self) -> VolumeCache:
        """MR to learn from, "lr"."""
        return self.cached(self.learned_from, self.load, ["lr"], True)

    @cached_property
    def batches(self) -> ThroughPlaneLoader:
        """Batches of patches, as :class:`~common.data.loaders.through_plane.ThroughPlaneLoader` gives them."""
        return ThroughPlaneLoader(self.source, self.train, **self._patches)

    def in_batches(self, batch_size: int) -> CTGuided:
        """The same volumes, in batches of so many patches: for one stage of several."""
        _ = self.source, self.train  # loaded, so that both hold them
        other = copy.copy(self)
        other._patches = {**self._patches, "batch_size": batch_size}
        vars(other).pop("batches", None)
        return other

    def check(self, graph: TensorGraph) -> None:
        """Refuse patches that are smaller than what the graph's networks can take."""
        smallest = max(getattr(network, "smallest", 1) for network in graph.networks.values())
        check_patch(self._patches["lr_patch"], self.scale[2], smallest)
