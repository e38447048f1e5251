"""Convert stored volumes to the axes and intensities that networks read, and back."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from nibabel.orientations import inv_ornt_aff, ornt_transform

from ...degradations.base import Degradation
from ...geometry.affines import UnclearSliceAxisError, find_slice_orientation, list_thick_axes, name_axis
from ...geometry.nearest import ALIKE, correlate_volumes
from ...io.images import open_image_or_none
from ...io.lazy_voxels import LazyVoxels
from ...io.nifti_affines import choose_encoding, read_encoding
from ...io.slice_axis import SLICE_AXIS
from .extremes import convert_type, forget_constant_regions, restore_set_aside

ORIENTATION = "slice_orientation"
POSSIBLE_AXES = "possible_slice_axes"
ENCODING = "encoding"
_SCALE = "intensity_range"
_PERCENTILE = "percentile"  # the 99.9th, of a volume that its maximum scaled


def reorient_volume(
    volume: torch.Tensor, affine: np.ndarray | torch.Tensor, orientation: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Permute and mirror the axes of ``(C, X, Y, Z)`` and its affine, like nibabel's ``apply_orientation``."""
    place = np.asarray(affine, dtype=np.float64) @ inv_ornt_aff(orientation, volume.shape[1:])
    mirrored = [axis + 1 for axis in range(3) if orientation[axis, 1] < 0]
    order = [int(axis) + 1 for axis in np.argsort(orientation[:, 0])]
    return volume.flip(mirrored).permute(0, *order).contiguous(), torch.from_numpy(place)


class SliceAxisd(MapTransform):
    """Order the axes so that the anatomical axis across the slices is last, for any stored order.

    Each axis runs to the right, anterior or superior, so a scan gives the same volume in any storage order.
    :class:`RestoreVolumed` restores order and directions.

    Args:
        keys: of channel-first volumes with an affine.
        slice_axis: anatomical axis across the slices, as for :func:`find_slice_orientation`.
        assume_coarsest: whether the axis of the largest spacing is taken where slices are thick and nothing shows their
            axis. The meta data then have all axes that it may be, the likeliest first, under :data:`POSSIBLE_AXES`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_axis: str | None = "SI",
        assume_coarsest: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.slice_axis, self.assume_coarsest = slice_axis, assume_coarsest

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            meta = dict(d[key].meta)
            across = meta.pop(SLICE_AXIS, None)
            try:
                orientation = find_slice_orientation(d[key].affine, self.slice_axis, across)
            except ValueError as error:
                possible = list_thick_axes(d[key].affine) if self.assume_coarsest else []
                if not (isinstance(error, UnclearSliceAxisError) and possible):
                    raise type(error)(f"{meta.get('filename_or_obj', key)}: {error}") from None
                meta[POSSIBLE_AXES] = [name_axis(d[key].affine, axis) for axis in possible]
                orientation = find_slice_orientation(d[key].affine, meta[POSSIBLE_AXES][0])
            volume, affine = reorient_volume(d[key].as_tensor(), d[key].affine, orientation)
            d[key] = attach_meta(volume, affine, {**meta, ORIENTATION: torch.from_numpy(orientation)})
        return d


class NormaliseVolumed(MapTransform):
    """Scale a volume so that 0, or its minimum if that is negative, becomes 0, and its 99.9th percentile 1.

    Nothing is clipped. The range is stored in the meta data, and :class:`RestoreVolumed` restores it.

    Args:
        keys: of volumes.
        scaled_by: what becomes 1, ``percentile`` or ``maximum``.
    """

    def __init__(self, keys: KeysCollection, scaled_by: str = "percentile", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if scaled_by not in ("percentile", "maximum"):
            raise ValueError(f"scaled_by is {scaled_by!r}, expected percentile or maximum.")
        self.scaled_by = scaled_by

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key].float()
            values = volume.flatten()
            low = min(values.min().item(), 0.0)
            # numpy, because torch.quantile takes no more than 16 million values
            percentile = high = float(np.quantile(values.numpy(), 0.999))
            if high <= low or self.scaled_by == "maximum":
                high = values.max().item()
            d[key] = (volume - low) / (high - low)
            d[key].meta[_SCALE] = torch.tensor([low, high], dtype=torch.float64)
            d[key].meta.pop(_PERCENTILE, None)
            if low < percentile < high:
                d[key].meta[_PERCENTILE] = (percentile - low) / (high - low)
        return d


class MakeLRd(MapTransform):
    """Degrade the HR volume of an entry that has no LR volume of its own.

    HR is cropped at its far ends to a multiple of the factors, so the first sample stays in place. An entry's own LR
    volume is not changed; HR must then have ``factors`` times its voxels.

    Args:
        keys: the key of the HR volume.
        degradation: from HR to LR.
        allow_missing_keys: whether an entry may lack HR, as authentic LR scans do.
        like: the degradation whose LR grid the networks are built for; None for ``degradation``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        degradation: Degradation,
        allow_missing_keys: bool = False,
        like: Degradation | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        grids = [(list(d.factors), list(d.offset)) for d in (degradation, like or degradation)]
        if grids[0] != grids[1]:
            (factors, offset), (expected, centre) = grids
            raise ValueError(
                f"scan_degradation or source_degradation puts LR voxel i on HR voxel {factors} * i + {offset}, but "
                f"degradation, for which the networks are built, on {expected} * i + {centre}: results and cubic "
                "interpolation would be displaced. Set degradation to the same, and leave the other out. A filter "
                "comes after degradation, in ComposeDegradations."
            )
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        factors = self.degradation.factors
        for key in self.key_iterator(d):
            hr = d[key]
            x, y, z = [n // f * f for n, f in zip(hr.shape[1:], factors, strict=True)]
            hr = d[key] = hr[:, :x, :y, :z]
            if "lr" in d:
                lr = d["lr"]
                expected = tuple(n // f for n, f in zip(hr.shape[1:], factors, strict=True))
                if tuple(lr.shape[1:]) != expected:
                    raise ValueError(
                        f"LR has {tuple(lr.shape[1:])} voxels and HR {tuple(hr.shape[1:])}; with the factors {factors} "
                        f"LR should have {expected}. Register or resample LR first, or leave it out."
                    )
                self._check_place(hr.affine, lr.affine)
                _warn_unless_alike(hr, lr)
                continue
            affine = self.degradation.compute_lr_affine(hr.affine)
            d["lr"] = attach_meta(self.degradation(hr.as_tensor()), affine, forget_constant_regions(hr.meta))
        return d

    def _check_place(self, hr_affine: torch.Tensor, lr_affine: torch.Tensor) -> None:
        """Refuse a pair whose LR voxels do not lie where the degradation puts them, to a tenth of their size."""
        expected = np.asarray(self.degradation.compute_lr_affine(hr_affine), dtype=np.float64)
        affine = np.asarray(lr_affine, dtype=np.float64)
        size = voxel_sizes(expected)
        apart = np.abs(np.linalg.solve(expected[:3, :3], affine[:3, :3] - expected[:3, :3])).max()
        shift = np.abs(np.linalg.solve(expected[:3, :3], affine[:3, 3] - expected[:3, 3])).max()
        if apart > 0.1 or shift > 0.1:
            raise ValueError(
                f"LR does not lie on HR: axes and spacing are off by {apart:.2f} and the first voxel by {shift:.2f} LR "
                f"voxels of {np.round(size, 3).tolist()} mm. The first voxel is the one furthest left, posterior and "
                f"inferior, however the files are stored; expected is LR voxel i on HR voxel "
                f"{list(self.degradation.factors)} * i + {list(self.degradation.offset)}. Make LR so, register or "
                "resample it, or leave it out."
            )


def _warn_unless_alike(hr: MetaTensor, lr: MetaTensor) -> None:
    """Warn of a pair that is not of one person."""
    found = correlate_volumes(*(np.asarray(each) for v in (hr, lr) for each in (torch.as_tensor(v)[0], v.affine)))
    if found < ALIKE:
        names = " and ".join(str(v.meta.get("filename_or_obj", "a volume")) for v in (hr, lr))
        warnings.warn(
            f"{names}: HR and LR correlate at {found:.2f}, expected at least {ALIKE} of one person. Are they of two "
            "people, or not in register? Mend the list, or leave them out.",
            stacklevel=3,
        )


def get_intensity_range(volume: MetaTensor) -> tuple[float, float]:
    """The intensities of the file that became 0 and 1; for a batch of one, those of its only volume."""
    low, high = torch.as_tensor(volume.meta.get(_SCALE, [0.0, 1.0])).reshape(-1)[-2:].tolist()
    return low, high


def get_white_level(volume: MetaTensor) -> float:
    """The 99.9th percentile of a normalised volume: 1, unless its maximum scaled it."""
    return float(volume.meta.get(_PERCENTILE, 1.0))


class RestoreVolumed(MapTransform):
    """Give a super-resolved volume the axes, position, units and data type of its input.

    If the file holds integers, the result is rounded to that type. If the file scales its integers, the result is
    float32, and ``SaveVolumed`` stores it as scaled integers (:func:`~common.io.nifti_affines.choose_encoding`).
    Values below the input's minimum are clipped, so a magnitude image stays one. Voxels that
    :class:`SetAsideExtremesd` keeps are put back: extremes, and regions where the scan is exactly constant.

    Args:
        keys: of the super-resolved volumes, channel-first.
        reference: key of the prepared input volume.
        degradation: from the result to the input, for the result's affine; None if the volume has its own affine, in
            the axis order of the prepared input.
        deviations: whether the volumes are deviations of a result; they are only scaled, and stored as float32.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str = "image",
        degradation: Degradation | None = None,
        deviations: bool = False,
    ) -> None:
        super().__init__(keys)
        self.reference = reference
        self.degradation = degradation
        self.deviations = deviations

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        source = d[self.reference]
        file = source.meta.get("filename_or_obj", self.reference)
        stored_orientation = ornt_transform([[0, 1], [1, 1], [2, 1]], source.meta[ORIENTATION].numpy())
        low, high = get_intensity_range(source)
        scale = high - low
        scan = torch.as_tensor(source)
        floor = scan.min().item() * scale + low
        constant = self.deviations or bool(scan.min() == scan.max())
        if self.deviations:
            low, floor = 0.0, -np.inf
        for key in self.key_iterator(d):
            affine = d[key].affine if self.degradation is None else self.degradation.compute_hr_affine(source.affine)
            values = torch.as_tensor(d[key]).detach().cpu().float() * scale
            span = [values.min().item(), values.max().item()]
            if not np.isfinite(span).all() or (span[0] == span[1] and not constant):
                raise ValueError(
                    f"{file}: the result has voxels from {span[0]:g} to {span[1]:g}, which is no image, so it is not "
                    "written. Scale the values of the scan to about 0 to 1000 and run it again. If that does not help, "
                    "the weights do not fit; set another --checkpoint or --bundle."
                )
            # In place, to save the memory of a volume.
            values, affine_out = reorient_volume(values.add_(low).clamp_min_(floor), affine, stored_orientation)
            array = values.numpy()
            if not self.deviations:
                array = convert_type(array, get_stored_dtype(source.meta.get("filename_or_obj")))
                if array.min() == array.max() and not constant:
                    raise ValueError(
                        f"{file}: every voxel of the result is {array.max():g} as {array.dtype}, so it is not written; "
                        f"the scan is from {floor:g} to {scan.max().item() * scale + low:g}. Store the scan as float32 "
                        "and run it again."
                    )
                # An inferer that combines stacks says itself what is put back.
                restore_set_aside(array[0], affine_out, {**source.meta, **getattr(d[key], "meta", {})})
            d[key] = attach_meta(torch.as_tensor(array), affine_out, source.meta)
            stored = None if self.deviations else open_image_or_none(source.meta.get("filename_or_obj", ""))
            if stored is not None and (encoding := choose_encoding(array, read_encoding(stored))):
                d[key].meta[ENCODING] = encoding
        return d


def get_stored_dtype(path: Any) -> np.dtype:
    """Data type of a result that is made from this file: the file's integer type, else float32."""
    image = None if path is None else open_image_or_none(path)
    if image is not None and image.get_data_dtype().kind in "iu":
        # ITK's voxels are floats if they are scaled. In other formats, one voxel shows whether they are scaled.
        voxels = image.dataobj
        dtype = (voxels if isinstance(voxels, LazyVoxels) else np.asanyarray(voxels[0, 0, 0])).dtype
        if dtype.kind in "iu":
            return dtype.newbyteorder("=")
    return np.dtype(np.float32)


def attach_meta(volume: torch.Tensor, affine: Any, meta: Mapping) -> MetaTensor:
    """A volume with a new affine, and the other meta data of its source."""
    return MetaTensor(volume, affine=affine, meta={k: v for k, v in meta.items() if k != "affine"})


def convert_to_units(volume: torch.Tensor, scan: MetaTensor) -> np.ndarray:
    """Convert a volume ``(1, X, Y, Z)`` that is scaled like a normalised scan to the units of the scan's file.

    Args:
        volume: the scan itself, or a volume made from it.
        scan: from :class:`NormaliseVolumed`, with its range.

    Returns:
        Array of shape (X, Y, Z).
    """
    low, high = get_intensity_range(scan)
    return torch.as_tensor(volume)[0].detach().cpu().float().numpy() * (high - low) + low
