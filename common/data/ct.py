"""CT that MR is super-resolved by."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform

from ..physics.scale import get_slice_factor
from ..transforms.ct import HounsfieldWindowd, ResampleHRd
from ..transforms.scan.load import LoadScand
from .lists.spacing import identify_slice_axis, measure_thin_slice_spacing


class LoadCTd(MapTransform):
    """Load a CT scan at the spacing and along the slice axis of MR that is super-resolved across slices.

    The steps are :class:`~common.transforms.LoadScand`, :class:`~common.transforms.ct.HounsfieldWindowd` and
    :class:`~common.transforms.ct.ResampleHRd`.

    Args:
        keys: of paths.
        mr_entries: entries of the MR, "lr" or else "hr"; their headers are read with the first CT scan.
        slice_axis: as for :class:`~common.transforms.SliceAxisd`, of the MR.
        scale: of the super-resolution, [1, 1, n].
        window, offset: as for :class:`~common.transforms.ct.HounsfieldWindowd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mr_entries: Sequence[Mapping],
        slice_axis: str,
        scale: Sequence[int],
        window: Sequence[float] = (-150, 250),
        offset: float | str = "auto",
    ) -> None:
        super().__init__(keys)
        self.mr_entries, self.slice_axis, self.scale = mr_entries, slice_axis, int(get_slice_factor(scale=scale))
        self.window, self.offset = window, offset

    @cached_property
    def steps(self) -> Compose:
        """The steps, once the MR is known."""
        spacing = measure_thin_slice_spacing(self.mr_entries, self.slice_axis, self.scale)
        axis = identify_slice_axis(self.mr_entries, self.slice_axis)
        return Compose(
            [
                LoadScand(self.keys, slice_axis=axis, normalise=False, set_aside=False),
                HounsfieldWindowd(self.keys, window=self.window, offset=self.offset),
                ResampleHRd(self.keys, spacing=spacing),
            ]
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return self.steps(data)
