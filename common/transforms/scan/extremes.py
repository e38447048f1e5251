"""Voxels that a network must not change: fill values, hot voxels, and regions where a scan is exactly constant."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from ...geometry.nearest import sample_nearest
from ...runtime.errors import Notice

_KEPT = "set_aside"
# Measured on 9 real MR volumes and a CT: their brightest voxel is 1.3 to 3.4 times the 99.9th percentile.
_BELOW, _ABOVE = 1.0, 5.0
_NEGATIVE = 0.05  # how far below 0 magnitudes may be, in ranges
# Share of voxels that may be extreme; in small volumes the share of _FEWEST voxels, up to _MOST_TAIL.
_TAIL, _FEWEST, _MOST_TAIL = 0.001, 100, 0.01
# Least gap between a frequent value and the rest, in ranges of the rest.
_GAP_BELOW, _GAP_ABOVE = 0.1, 1.0
_SATURATED = 0.005  # share of voxels with the highest value; 53 real MR volumes have at most 0.00011
_LEVELS, _LARGEST_SHARE, _THICK = 16, 0.8, 2
_SAMPLES, _CHUNK, _NEIGHBOURS = 2**20, 2**17, 13
_AROUND = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def find_extremes(volume: np.ndarray) -> np.ndarray | None:
    """Find voxels far beyond all others: a fill value around or in the field of view, hot voxels, outliers.

    The range of the rest is from its 0.1st percentile, or 0 if that is lower, to its 99.9th percentile. Its lowest and
    highest value are left out of these, so that a fill value of any share is found. Voxels more than five ranges above
    or below the rest are extreme; below magnitudes, which are not negative, more than one range. A frequent value is
    extreme if it is separated from the rest by a gap of a tenth of the range below 0, or of one range above the rest.
    Bright voxels that vary and are more than four voxels thick are an object, not extreme. Zero is never extreme.

    Args:
        volume: ``(X, Y, Z)``, finite, any units.

    Returns:
        True at extreme voxels. None if there are none, if the rest has fewer than 16 different values, or if more than
        80 % of the voxels would be extreme.
    """
    lowest, highest = float(volume.min()), float(volume.max())
    flat = volume.ravel(order="K")  # no copy
    step = max(1, flat.size // _SAMPLES)
    sample = np.sort(flat[::step]).astype(np.float64)
    least, most = -np.inf, np.inf
    while True:
        below, above = _compute_limits(_select_between(sample, least, most), lowest, highest, step)
        if lowest >= below and highest <= above:
            break
        least, most = (below if lowest < below else least), (above if highest > above else most)
        inside = volume[(volume >= least) & (volume <= most)]
        if inside.size < (1 - _LARGEST_SHARE) * volume.size:
            return None
        lowest, highest = float(inside.min()), float(inside.max())
    if not np.isfinite([least, most]).any():
        return None
    extreme = volume > most
    if _is_object(extreme, volume):
        extreme[:] = False
    extreme |= volume < least
    return extreme if extreme.any() else None


def _select_between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Select sorted values from ``low`` to ``high``, both included."""
    return values[np.searchsorted(values, low, "left") : np.searchsorted(values, high, "right")]


def _compute_limits(values: np.ndarray, lowest: float, highest: float, step: int) -> tuple[float, float]:
    """Limits beyond which voxels are extreme, from the extremes of all voxels and a sorted sample of 1 in ``step``."""
    low, high = lowest, highest
    for _ in range(3):
        rest = values[np.searchsorted(values, low, "right") : np.searchsorted(values, high, "left")]
        if np.unique(rest[:: max(1, rest.size // 10_000)]).size < _LEVELS:
            break
        tail = max(_TAIL, min(_MOST_TAIL, _FEWEST / (rest.size * step)))
        first, last = np.quantile(rest, [tail, 1 - tail])
        span = last - min(first, 0.0)
        if not span > 0:
            break
        magnitudes = first >= -_NEGATIVE * span
        below = min(first, 0.0) - (_BELOW if magnitudes else _ABOVE) * span
        above = last + _ABOVE * span
        if lowest < 0 and magnitudes and rest[0] - lowest >= _GAP_BELOW * span:
            below = max(below, (lowest + rest[0]) / 2) if _compute_share(values, lowest) >= _TAIL else below
        if highest - rest[-1] >= _GAP_ABOVE * span and _compute_share(values, highest) >= _TAIL:
            above = min(above, (highest + rest[-1]) / 2)
        with np.errstate(over="ignore"):
            below, above = float(np.float32(below)), float(np.float32(above))  # in the precision of the voxels
        if lowest < below or highest > above:
            return below, above
        # A second fill value may hide behind the first.
        if rest[0] < 0 and _compute_share(values, rest[0]) >= _TAIL:
            low = rest[0]
        elif _compute_share(values, rest[-1]) >= _TAIL:
            high = rest[-1]
        else:
            break
    return -np.inf, np.inf


def _compute_share(values: np.ndarray, value: float) -> float:
    """Share of sorted values that are equal to ``value``."""
    return len(_select_between(values, value, value)) / max(len(values), 1)


def _is_object(extreme: np.ndarray, volume: np.ndarray) -> bool:
    """Whether the extreme voxels include a thick object of varied values, such as a small sample in noise."""
    values, counts = np.unique(volume[extreme], return_counts=True)
    varied = extreme & ~np.isin(volume, values[counts >= _TAIL * volume.size])
    return bool(ndimage.binary_erosion(varied, np.ones((3, 3, 3)), iterations=_THICK).any())


def find_constant_regions(volume: np.ndarray) -> np.ndarray:
    """Find where a scan says nothing: around a stripped skull, where a face was removed, in a void, where it saturates.

    Args:
        volume: ``(X, Y, Z)``, any units.

    Returns:
        True at voxels that equal their six neighbours, in regions that hold a voxel whose neighbours do so too.
    """
    flat = np.ones(volume.shape, bool)
    for axis in range(3):
        values, inner = np.moveaxis(volume, axis, 0), np.moveaxis(flat, axis, 0)
        equal = values[1:] == values[:-1]
        inner[1:] &= equal
        inner[:-1] &= equal
    core = ndimage.binary_erosion(flat, border_value=1)
    if not core.any():
        return core
    regions, count = ndimage.label(flat)
    is_wide = np.zeros(count + 1, bool)
    is_wide[regions[core]] = True
    return is_wide[regions]


def replace_extremes(volume: np.ndarray, extreme: np.ndarray) -> np.ndarray:
    """Replace the extreme voxels of a volume by the median of their neighbours.

    Args:
        volume: ``(X, Y, Z)``.
        extreme: mask of extreme voxels, from :func:`find_extremes`.

    Returns:
        The volume. The median is used if at least half of the 26 neighbours are not extreme. Else the voxel becomes 0,
        or the minimum of the rest if that is negative.
    """
    clean = volume.copy()
    clean[extreme] = min(float(volume[~extreme].min()), 0.0)
    usable = np.pad(~extreme, 1)
    count = usable.astype(np.uint8)
    for axis in range(3):
        count[:] = ndimage.convolve1d(count, [1, 1, 1], axis=axis, mode="constant")
    inner = count[1:-1, 1:-1, 1:-1]
    places = np.argwhere(extreme & (inner >= _NEIGHBOURS)) + 1
    padded = np.pad(volume, 1)
    for chunk in np.array_split(places, max(1, len(places) // _CHUNK)):
        around = [tuple((chunk + step).T) for step in _AROUND]
        values = np.stack([np.where(usable[at], padded[at], np.nan) for at in around], axis=1)
        if len(chunk):
            clean[tuple((chunk - 1).T)] = np.nanmedian(values, axis=1)
    return clean


def clean_volume(volume: np.ndarray) -> np.ndarray:
    """A volume ``(X, Y, Z)`` without its extreme voxels, for scaling or drawing; unchanged if it has none."""
    extreme = find_extremes(volume)
    return volume if extreme is None else replace_extremes(volume, extreme)


class SetAsideExtremesd(MapTransform):
    """Remove extreme voxels (:func:`find_extremes`) before normalisation and the network, with a warning.

    :func:`replace_extremes` replaces them. The volume's meta data keep them, and constant regions
    (:func:`find_constant_regions`), for :func:`restore_set_aside`. A warning says if the rest is saturated.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` of finite voxels, with the axes as they are stored.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key]
            array = torch.as_tensor(volume)[0].numpy()
            extreme, kept = find_extremes(array), find_constant_regions(array)
            meta = {name: value for name, value in getattr(volume, "meta", {}).items() if name != "affine"}
            file = meta.get("filename_or_obj", key)
            if extreme is None:
                clean, extreme = array, np.zeros_like(kept)
            else:
                clean = replace_extremes(array, extreme)
                kept |= extreme
                warnings.warn(f"{file}: {_describe_extremes(array, extreme, clean)}", Notice, stacklevel=2)
            count = np.count_nonzero(clean == clean.max())
            if count > max(_FEWEST, _SATURATED * clean.size):
                warnings.warn(
                    f"{file}: saturated; {count / clean.size:.1%} of the voxels have the highest value, "
                    f"{clean.max():.7g}, and no detail. If a converter cut the values, convert again with all of them; "
                    "what the scanner cut is lost.",
                    stacklevel=2,
                )
            if not kept.any():
                continue
            affine = getattr(volume, "affine", torch.eye(4, dtype=torch.float64))
            values = array[kept]
            one = (values == values[0]).all()
            meta |= _pack_arrays(affine=affine, extreme=extreme, kept=kept, values=values[:1] if one else values)
            d[key] = MetaTensor(torch.from_numpy(clean)[None], affine=affine, meta=meta)
        return d


def _pack_arrays(**arrays: Any) -> dict[Hashable, Any]:
    """Meta data with arrays as bytes, because volumes in a batch may differ in these voxels."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return {_KEPT: buffer.getvalue()}


def _unpack_arrays(meta: Mapping[Hashable, Any]) -> Mapping[str, np.ndarray]:
    """The arrays that meta data keep; those of a batch of one too."""
    kept = meta[_KEPT]
    return np.load(io.BytesIO(kept[0] if isinstance(kept, list) else kept))


def forget_constant_regions(meta: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Meta data of a volume that is made of a scan: what :class:`SetAsideExtremesd` keeps, without constant regions."""
    if _KEPT not in meta:
        return {**meta}
    arrays = _unpack_arrays(meta)
    extreme, values = arrays["extreme"], arrays["values"]
    values = values if len(values) == 1 else values[extreme[arrays["kept"]]]
    return {**meta, **_pack_arrays(affine=arrays["affine"], extreme=extreme, kept=extreme, values=values)}


def find_set_aside(
    size: Sequence[int], affine: np.ndarray, meta: Mapping[Hashable, Any], which: str = "kept"
) -> np.ndarray:
    """Which voxels of a grid were set aside in a scan: those whose nearest voxel of the scan was.

    Args:
        size: of the grid ``(X, Y, Z)``.
        affine: of the grid, 4x4, voxel to world.
        meta: of the scan, from :class:`SetAsideExtremesd`.
        which: ``extreme``, or ``kept`` for constant regions too.

    Returns:
        Mask ``(X, Y, Z)``.
    """
    if _KEPT not in meta:
        return np.zeros(size, bool)
    arrays = _unpack_arrays(meta)
    return sample_nearest(arrays[which], arrays["affine"], size, affine)


def select_unmeasured(
    meta: Mapping[Hashable, Any], others: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[Hashable, Any]:
    """The voxels that a scan keeps and no other scan measured, for :func:`restore_set_aside`.

    Args:
        meta: of the scan, from :class:`SetAsideExtremesd`.
        others: of each other scan, a mask of the voxels that it measured, and its affine.

    Returns:
        Meta data that keep these voxels only; empty if the scan keeps none.
    """
    if _KEPT not in meta:
        return {}
    arrays = _unpack_arrays(meta)
    kept, values = arrays["kept"], arrays["values"]
    left = kept.copy()
    for measured, affine in others:
        left &= ~sample_nearest(measured, affine, kept.shape, arrays["affine"])
    values = values if len(values) == 1 else values[left[kept]]
    return _pack_arrays(affine=arrays["affine"], extreme=left & arrays["extreme"], kept=left, values=values)


def _describe_extremes(volume: np.ndarray, extreme: np.ndarray, clean: np.ndarray) -> str:
    """The warning: which voxels are extreme, where, and what happens to them."""
    values, counts = np.unique(volume[extreme], return_counts=True)
    if len(values) <= 3:
        what = " and ".join(f"{count} of {value:.7g}" for value, count in zip(values, counts, strict=True))
    else:
        what = f"{counts.sum()} from {values[0]:.7g} to {values[-1]:.7g}"
    parts, count = ndimage.label(extreme, np.ones((3, 3, 3)))
    largest = ndimage.find_objects(parts)[np.bincount(parts[extreme]).argmax() - 1]
    where = ", ".join(f"{s.start}" if s.stop - s.start == 1 else f"{s.start}-{s.stop - 1}" for s in largest)
    where = f"within voxels ({where})" if count == 1 else f"in {count} places, the largest within voxels ({where})"
    return (
        f"voxels far beyond the rest ({clean.min():.6g} to {clean.max():.6g}): {what}, {where}, "
        "counted from 0. They are ignored by normalisation and network; a result gets them back where no other "
        "stack measured."
    )


def restore_set_aside(result: np.ndarray, affine: np.ndarray | torch.Tensor, meta: Mapping[Hashable, Any]) -> None:
    """Put the extreme voxels and constant regions of a scan back into its result, in place.

    If the nearest voxel of the scan was set aside, the voxel of the result gets its value, without interpolation.

    Args:
        result: ``(X, Y, Z)``, integers or floats, with the axes as the scan is stored.
        affine: of the result, 4x4, voxel to world.
        meta: of the scan, from :class:`SetAsideExtremesd`.
    """
    if _KEPT not in meta:
        return
    arrays = _unpack_arrays(meta)
    values = np.zeros(arrays["kept"].shape, np.float32)
    values[arrays["kept"]] = arrays["values"]
    kept, values = (
        sample_nearest(volume, arrays["affine"], result.shape, np.asarray(affine))
        for volume in (arrays["kept"], values)
    )
    result[kept] = convert_type(values[kept], result.dtype)


def convert_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round float32 values to an integer type and clip them to its range; for other types, return them unchanged.

    Args:
        values: changed in place.
        dtype: of the result.
    """
    if dtype.kind not in "iu":
        return values
    largest = np.iinfo(dtype).max
    np.rint(values, out=values)
    # The largest integers are no float32: rounded up, they would wrap around.
    full = values >= np.float32(largest)
    below = np.nextafter(np.float32(largest), np.float32(0))
    integers = np.clip(values, np.iinfo(dtype).min, below, out=values).astype(dtype)
    integers[full] = largest
    return integers
