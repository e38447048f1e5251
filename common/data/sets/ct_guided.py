"""Thick-slice MR, and unpaired thin-slice volumes to learn from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from monai.transforms import Compose

from ...graph import TensorGraph
from ...transforms import (
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
from ..loaders.through_plane import ThroughPlaneLoader, check_patch
from ..loaders.volumes import VolumeCache
from .thick_slices import ThickSlices


class CTGuided(ThickSlices):
    """Thick-slice MR, and unpaired HR volumes (CT or MR) to learn from. Without validation entries, no validation runs.

    Args:
        kind: of the HR volumes, "ct" or "hr".
        group: of the HR volumes, "source" or "target".
        attributes: values of an attribute code, as for :class:`~common.data.loaders.through_plane.ThroughPlaneLoader`.
        contrasts, gains, any_axis, zoom: as for that loader.
        window, ct_offset: of CT, as for :class:`common.transforms.HounsfieldWindowd`.
        check_mr: whether MR is refused whose values look like those of CT.
        options: of :class:`ThickSlices`.

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
    may_lack_validation = True
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
    def slice_axis(self) -> str:
        """Axis across the slices of the scans that the weights are for."""
        return "auto" if self.any_axis else self._axis

    @cached_property
    def _axis(self) -> str:
        """Axis across the slices of the training scans."""
        return super().slice_axis

    def validating(self, kinds: str | Sequence[str] = SCANS) -> list[dict]:
        """Entries to validate with, always from the validation group, also in a cross-validation."""
        return self.listed("validation", kinds, "hr", True)

    @cached_property
    def learned_from(self) -> list[dict]:
        """MR of the target group."""
        return self.listed("target")

    @cached_property
    def load(self) -> Compose:
        """Reads an entry of MR."""
        some: dict[str, Any] = {"keys": SCANS, "allow_missing_keys": True}
        return Compose(
            [
                LoadScand(**some, slice_axis=self._axis, normalise=False, check_mr=self.check_mr),
                NormaliseVolumed(**some),
                MakeLRd("hr", degradation=self.scan_degradation, like=self.degradation, allow_missing_keys=True),
                CheckThickSlicesd("lr", scale=self.scale[2]),
            ]
        )

    @cached_property
    def load_ct(self) -> Compose:
        """Reads an entry of CT, at the spacing of super-resolved MR."""
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
        """HR volumes to learn from, "hr"."""
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
        """The same volumes, in batches of another size, for another stage."""
        _ = self.source, self.train  # loaded, so that both hold them
        other = copy.copy(self)
        other._patches = {**self._patches, "batch_size": batch_size}
        vars(other).pop("batches", None)
        return other

    def check(self, graph: TensorGraph) -> None:
        """Refuse patches that are smaller than what the graph's networks can take."""
        smallest = max(getattr(network, "smallest", 1) for network in graph.networks.values())
        check_patch(self._patches["lr_patch"], self.scale[2], smallest)
