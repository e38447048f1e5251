"""Checks of input files and volumes before anything is computed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Spacingd
from scipy.ndimage import binary_fill_holes

from ...degradations.base import Degradation
from ...geometry.tissue import find_tissue
from ...io.read import check_header
from ...runtime.errors import Notice
from ...runtime.memory import check_memory
from .extremes import find_extremes

# Share of equal neighbours along each axis: 57 to 90 % in label maps of heads, up to 27 % in scans.
_PIECEWISE = 0.5
# In sparse volumes each voxel counts. Along an axis across thin labels, such as points or a centerline, voxels have few
# neighbours, and these say nothing. In scans, voxels have a neighbour about as often as possible, at least 0.85 of it.
_SPARSE, _THIN = 0.05, 0.25
# Unsigned numbers that were stored as signed have many values near both ends of the range, in shares of the range. Read
# as unsigned, neighbours differ by more than half of the range far more rarely. The ratio was up to 0.28 in scans of
# heads, unless most of the tissue wrapped, and at least 0.36 in phase images.
_NEAR_END, _FEWEST_VALUES, _MOST_JUMPS = 0.05, 4, 0.3


class CheckHeaderd(MapTransform):
    """Refuse files that :func:`~common.io.read.check_header` refuses.

    Values that are not paths, such as volumes that a client has already loaded, are not checked.

    Args:
        keys: of the paths.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            if isinstance(data[key], (str, os.PathLike)):
                check_header(Path(data[key]))
        return dict(data)


class CheckVoxelsd(MapTransform):
    """Refuse volumes with non-finite tissue, constant volumes, masks, label maps, wrapped numbers and too few voxels.

    Non-finite voxels outside of tissue are set to air, with a warning: 0, or the volume's minimum if that is negative,
    as in :class:`NormaliseVolumed`. Tissue is what is brighter than Otsu's threshold, what it encloses, and a slice or
    line between two parts of it.

    A mask has two values. A label map has whole numbers, and along each axis at least half of the neighbours are equal,
    not counting the background and axes across thin labels. Whole numbers at points without neighbours are labels too.
    A dark volume of a 4-D scan has few whole numbers and is no label map; its entry has ``<key>_is_dark``.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)``.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = torch.as_tensor(d[key])
            file = getattr(volume, "meta", {}).get("filename_or_obj", key)
            finite = torch.isfinite(volume)
            if not finite.all():
                volume = d[key] = _replace_non_finite(volume, finite.numpy(), file)
            # By NumPy, because torch takes half a second for voxels in the order that NIfTI stores them.
            if (highest := volume.numpy().max()) == volume.numpy().min():
                raise ValueError(f"{file}: every voxel is {highest:g}, so there is no image; leave the volume out.")
            if min(volume.shape[-3:]) < 3:
                raise ValueError(
                    f"{file}: the volume has {tuple(volume.shape[-3:])} voxels, fewer than a slab: 3 on "
                    "each axis; leave it out."
                )
            if bits := _find_wrapped_bits(volume.numpy()):
                raise ValueError(
                    f"{file}: its brightest voxels are negative, from {volume.numpy().min():g}: they are unsigned "
                    f"numbers of {bits} bits that were stored as signed. Do not set them to 0. Add {2**bits} to each "
                    "negative voxel, and save as float, or convert the scan again. For NIfTI with voxels of 16 bits: "
                    "nifti_tool -mod_hdr -mod_field datatype 512 -infiles SCAN -prefix MENDED"
                )
            if not d.get(f"{key}_is_dark") and (description := describe_labels(volume.numpy())):
                raise ValueError(
                    f"{file}: {description}. It is no scan: leave it out. With its scan, --label brings it to the "
                    "result's grid. To a phantom without noise, add noise of a thousandth of its range."
                )
        return d


def _find_wrapped_bits(volume: np.ndarray) -> int | None:
    """How many bits the unsigned magnitudes have that were stored as signed numbers; None if none were."""
    low, high = float(volume.min()), float(volume.max())
    if low >= 0 or high < 1:
        return None
    bits = int(high).bit_length() + 1
    end = 2 ** (bits - 1)
    near = _NEAR_END * end
    if high < end - near or not -end <= low <= near - end:
        return None
    ends = volume[volume > end - near], volume[volume < near - end]
    if any(len(np.unique(values)) < _FEWEST_VALUES for values in ends):
        return None  # such as a fill value
    signed, unsigned = (
        sum(np.sum(np.abs(np.diff(values, axis=axis)) > end) for axis in (1, 2, 3))
        for values in (volume, np.where(volume < 0, volume + 2**bits, volume))
    )
    return bits if unsigned < _MOST_JUMPS * signed else None


def describe_labels(volume: np.ndarray) -> str | None:
    """Describe a non-constant volume ``(1, X, Y, Z)`` that is a mask or a label map; None for intensities."""
    low, high = volume.min(), volume.max()
    # For most scans a few voxels suffice.
    if all(((v == low) | (v == high)).all() for v in (volume[..., ::7, ::7, ::7], volume)):
        return f"a mask, every voxel is {low:g} or {high:g}"
    few = volume[0, ::2, ::2, ::2]
    if not all((v == np.rint(v)).all() for v in (few[::4, ::4, ::4], few)):
        return None
    values, counts = np.unique(few, return_counts=True)
    background = values[counts.argmax()]
    inside = volume[0] != background
    share = inside.mean()
    # Every second line could miss small labels, or the only slice with tissue.
    step = 2 if share > _SPARSE and len(values) > 1 else 1
    if step == 1 and not ((labels := np.unique(volume[0][inside])) == np.rint(labels)).all():
        return None
    description = (
        f"{len(values)} whole numbers" if step == 2 else f"{len(labels)} whole numbers in {inside.sum()} voxels"
    )
    shares = []
    for axis in range(3):
        along, within = (np.moveaxis(each, axis, 0)[:, ::step, ::step] for each in (volume[0], inside))
        # Both pairs of each voxel: upsampling by nearest neighbours makes every other pair of a scan equal.
        for first in (0, 1):
            pairs = within[first:-1:2] & within[first + 1 :: 2]
            if pairs.mean() > _THIN * share:
                shares.append((along[first:-1:2] == along[first + 1 :: 2])[pairs].mean())
    if not shares:
        return f"label points, {description}, which are apart from each other"
    if min(shares) < _PIECEWISE:
        return None
    return f"a label map, of about {description}, and at least {min(shares):.0%} of neighbours are equal"


def _replace_non_finite(volume: torch.Tensor, finite: np.ndarray, file: Any) -> torch.Tensor:
    """Make voxels outside of tissue finite in a volume ``(1, X, Y, Z)``; refuse non-finite voxels in tissue."""
    values = torch.as_tensor(volume).numpy()
    finding = f"{file}: {np.sum(~finite)} of {finite.size} voxels are NaN or infinite"
    if not finite.any():
        raise ValueError(f"{finding}, so there is no image; leave the volume out.")
    # Fill values and hot voxels would spoil the threshold between air and tissue.
    usual = values[finite]
    extremes = find_extremes(usual.reshape(1, 1, -1))
    usual = usual if extremes is None else usual[~extremes[0, 0]]
    low = min(float(usual.min()), 0.0)
    # The brightest voxels would move the threshold.
    clipped = np.where(finite, values, low).clip(low, np.quantile(usual, 0.999))[0]
    in_tissue = int(np.sum(~finite[0] & _fill_tissue(find_tissue(clipped), finite[0])))
    if in_tissue:
        raise ValueError(
            f"{finding}, {in_tissue} of them in tissue, where no value can be assumed; repair the volume or leave it "
            "out."
        )
    warnings.warn(f"{finding}, all outside of tissue; set to {low:g}.", Notice, stacklevel=2)
    volume = volume.clone()
    volume[torch.from_numpy(~finite)] = low
    return volume


def _fill_tissue(bright: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Find tissue: bright voxels, voxels that they enclose, and non-finite voxels between two of them.

    The last are lost slices or lines. If most of the volume's border is not finite, they do not count, because they
    are then the background of a mask between folds of tissue.
    """
    tissue = bright.copy()
    faces = [(axis, end) for axis in range(3) for end in (0, -1)]
    for axis, end in faces:
        face = np.moveaxis(tissue, axis, 0)[end]
        face |= binary_fill_holes(face)
    tissue = binary_fill_holes(tissue)
    if np.concatenate([np.moveaxis(finite, axis, 0)[end].ravel() for axis, end in faces]).mean() < 0.5:
        return tissue
    lost = np.zeros_like(tissue)
    for axis in range(3):
        before = _find_last_finite(tissue, finite, axis)
        after = np.flip(_find_last_finite(np.flip(tissue, axis), np.flip(finite, axis), axis), axis)
        lost |= before & after & ~finite
    return tissue | lost


def _find_last_finite(mask: np.ndarray, finite: np.ndarray, axis: int) -> np.ndarray:
    """For each voxel, the mask at the last finite voxel up to it along an axis; False before the first."""
    index = np.arange(mask.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
    last = np.maximum.accumulate(np.where(finite, index, 0), axis=axis)
    return np.take_along_axis(mask & finite, last, axis=axis)


class CheckMemoryd(MapTransform):
    """Refuse scans whose results do not fit into the free memory.

    On a CPU four volumes of the result's size are needed in float32, with a GPU three at the end.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine.
        degradation: from the network's result to the scan.
        device: where the network runs.
        allow_missing_keys: whether an entry may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        degradation: Degradation,
        device: torch.device | str,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.degradation = degradation
        self.copies = 4.0 if torch.device(device).type == "cpu" else 3.0

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            what = f"{data[key].meta.get('filename_or_obj', key)}: its result"
            size = self.degradation.compute_hr_size(data[key].shape[1:])
            check_memory(size, self.copies, torch.device("cpu"), what, advise_memory)
        return dict(data)


def advise_memory(_: float) -> str:
    """What to do about a result that needs more than the free memory."""
    return "free some, crop the scan, use a larger machine, or mri-sr with a larger --spacing"


class ResizePlanesd(MapTransform):
    """Resize LR volumes in plane to a spacing, by a cubic spline and no low-pass.

    Args:
        keys: of channel-first volumes whose slices run along the last axis.
        spacing: of both in-plane axes in mm; None to leave volumes as they are.
    """

    def __init__(self, keys: KeysCollection, spacing: Sequence[float] | None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = spacing
        if spacing is not None:
            options: Any = {"mode": 3, "padding_mode": "nearest", "align_corners": False}
            self.resize = Spacingd(keys, (*spacing, -1), **options, allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.spacing is None:
            return dict(data)
        for key in self.key_iterator(data):
            spacing = np.linalg.norm(np.asarray(data[key].affine)[:3, :2], axis=0)
            ratio = spacing / self.spacing
            if ratio.min() < 1 / 1.5 or ratio.max() > 1.5:
                raise ValueError(
                    f"{data[key].meta.get('filename_or_obj', key)}: its pixels are {np.round(spacing, 3).tolist()} mm "
                    f"in plane, expected about {np.round(self.spacing, 3).tolist()} mm, scale times the spacing of the "
                    "HR scans. Are LR and HR swapped, or is slice_axis wrong? If not, resample LR or HR."
                )
        return self.resize(data)
