"""Load a scan as a volume that a network can read."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, EnsureChannelFirst, MapTransform

from ...geometry.affines import find_slice_permutation
from ...io.read import check_header, read_volume
from ...io.slice_axis import SLICE_AXIS
from .acquired import AcquiredMatrixd
from .check import CheckVoxelsd
from .extremes import SetAsideExtremesd
from .modality import CheckMRd
from .volume import NormaliseVolumed, SliceAxisd


def check_volume(entry: Mapping[Any, Any]) -> None:
    """Check the header and the voxels of an entry's "image" before anything is computed."""
    check_header(Path(entry["image"]), complete=False)
    CheckVoxelsd("image")({**entry, "image": read_volume(entry["image"])[None]})


class LoadScand(MapTransform):
    """Load a scan: check its header, read it, check its voxels, put the slice axis last, and normalise it.

    Args:
        keys: of paths, or of volumes ``(X, Y, Z)`` that a client has already loaded, which are not checked as files.
        slice_axis: anatomical axis across the slices, "LR", "AP", "SI", or "auto" to choose by the file, else by the
            spacing. An entry may have one for each file, as a mapping "slice_axes".
        ordered: whether to put that axis last, with all axes to the right, anterior or superior; else the axes stay as
            stored.
        normalise: whether to scale intensities to [0, 1].
        scaled_by: as for :class:`NormaliseVolumed`.
        set_aside: whether to set extreme voxels aside; false for CT, where :class:`HounsfieldWindowd` treats padding.
        check_mr: whether volumes are refused whose values look like those of CT.
        assume_coarsest: as for :class:`SliceAxisd`.

    Returns:
        The entry, with a volume ``(1, X, Y, Z)`` under each key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_axis: str | None = "auto",
        ordered: bool = True,
        normalise: bool = True,
        scaled_by: str = "percentile",
        set_aside: bool = True,
        check_mr: bool = False,
        assume_coarsest: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        some: dict[str, Any] = {"keys": keys, "allow_missing_keys": allow_missing_keys}
        self.channel = EnsureChannelFirst(channel_dim="no_channel")
        steps: list[Any] = [CheckVoxelsd(**some)]
        if set_aside:
            steps.append(SetAsideExtremesd(**some))
        if check_mr:
            steps.append(CheckMRd(**some))
        steps.append(AcquiredMatrixd(**some))
        if ordered:
            steps.append(SliceAxisd(**some, slice_axis=slice_axis, assume_coarsest=assume_coarsest))
        if normalise:
            steps.append(NormaliseVolumed(**some, scaled_by=scaled_by))
        self.prepare = Compose(steps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if isinstance(d[key], (str, os.PathLike)):
                check_header(Path(d[key]), complete=False)
                axis = d.get("slice_axes", {}).get(str(d[key]), "auto")
                d[key] = read_volume(d[key])
                if axis != "auto":
                    d[key].meta[SLICE_AXIS] = find_slice_permutation(d[key].affine, axis)[2]
            d[key] = self.channel(d[key])
        return self.prepare(d)
