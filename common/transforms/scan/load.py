"""Load a scan as a volume that a network can read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, MapTransform

from ...io.images import open_image
from ...values import is_true
from ..ct.hounsfield import CheckMRd
from .acquired import AcquiredMatrixd
from .check import CheckHeaderd, CheckVoxelsd
from .extremes import SetAsideExtremesd
from .volume import NormaliseVolumed, SliceAxisd


def read_volume(path: str | os.PathLike) -> MetaTensor:
    """Read a volume with :func:`~common.io.images.open_image`, without axes of length 1 after the third.

    MONAI's reader is not used, because it can move voxels: if voxel sizes in a header differ a little, it overwrites
    one form by the other.

    Args:
        path: of a file that :class:`CheckHeaderd` accepts.

    Returns:
        Volume ``(X, Y, Z)``, float32.
    """
    image = open_image(path)
    voxels = _as_float32(np.asanyarray(image.dataobj).reshape(image.shape[:3]), path)
    return MetaTensor(torch.from_numpy(voxels), affine=image.affine, meta={"filename_or_obj": str(path)})


def check_volume(path: str | os.PathLike) -> None:
    """Check the header and the voxels of a file before anything is computed.

    Raises:
        ValueError: as :class:`CheckHeaderd` and :class:`CheckVoxelsd`.
    """
    CheckHeaderd("image")({"image": str(path)})
    CheckVoxelsd("image")({"image": read_volume(path)[None]})


def _as_float32(voxels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Convert voxels to float32; clip those beyond its range, with a warning."""
    with np.errstate(over="ignore"):
        single = voxels.astype(np.float32)
    if voxels.dtype.kind != "f" or voxels.dtype.itemsize <= 4:
        return single
    beyond = np.isinf(single) & np.isfinite(voxels)
    if beyond.any():
        largest = np.finfo(np.float32).max
        found = f"{path}: {beyond.sum()} of {beyond.size} voxels are beyond the range of float32"
        warnings.warn(f"{found}; set to its largest number, {largest:.4g}.", stacklevel=3)
        single[beyond] = np.copysign(largest, single[beyond])
    return single


class LoadScand(MapTransform):
    """Load a scan: check its header, read it, check its voxels, put the slice axis last, and normalise it.

    The steps are :class:`CheckHeaderd`, :func:`read_volume`, :class:`CheckVoxelsd`, :class:`SetAsideExtremesd`,
    :class:`~common.transforms.CheckMRd`, :class:`AcquiredMatrixd`, :class:`SliceAxisd` and :class:`NormaliseVolumed`.

    Args:
        keys: of paths, or of volumes ``(X, Y, Z)`` that a client has already loaded, which are not checked as files.
        slice_axis: anatomical axis across the slices, "LR", "AP", "SI", or "auto" to choose by the spacing.
        ordered: whether to put that axis last, with all axes to the right, anterior or superior; else the axes stay as
            stored.
        normalise: whether to scale intensities to [0, 1].
        set_aside: whether to set extreme voxels aside; false for CT, where :class:`HounsfieldWindowd` treats padding.
        check_mr: whether volumes are refused whose values look like those of CT.
        allow_missing_keys: whether an entry may lack a key.

    Returns:
        The entry, with a volume ``(1, X, Y, Z)`` under each key.

    Raises:
        FileNotFoundError, ValueError: when a step raises it; the message names the file.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_axis: str | None = "auto",
        ordered: bool = True,
        normalise: bool = True,
        set_aside: bool = True,
        check_mr: bool | str = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        some: dict[str, Any] = {"keys": keys, "allow_missing_keys": allow_missing_keys}
        self.check = CheckHeaderd(**some)
        self.channel = EnsureChannelFirst(channel_dim="no_channel")
        steps: list[Any] = [CheckVoxelsd(**some)]
        if set_aside:
            steps.append(SetAsideExtremesd(**some))
        if is_true(check_mr, "check_mr"):
            steps.append(CheckMRd(**some))
        steps.append(AcquiredMatrixd(**some))
        if ordered:
            steps.append(SliceAxisd(**some, slice_axis=slice_axis))
        if normalise:
            steps.append(NormaliseVolumed(**some))
        self.prepare = Compose(steps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = self.check(data)
        for key in self.key_iterator(d):
            volume = read_volume(d[key]) if isinstance(d[key], (str, os.PathLike)) else d[key]
            d[key] = self.channel(volume)
        return self.prepare(d)
