"""CT: Hounsfield units, body mask and window; and thick slices of MR."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from scipy import ndimage
from torch.nn.functional import avg_pool3d

from ..degradations.interpolation import interpolate
from ..degradations.profiles import GaussianProfile
from ..geometry.affines import RATIO_ROUNDING, THICK
from ..io.files import read_json_object
from ..physics.scale import get_slice_factor
from ..runtime.errors import Notice
from .scan.modality import AIR, EMPTY, PADDING, find_ct_offset, sample_voxels
from .scan.volume import attach_meta

# Body mask, in HU and mm: threshold half-way from air to tissue; grid; radius of the opening; distance up to which
# removed parts are restored; margin around the body.
_SURFACE, _GRID, _THIN, _RESTORE, _MARGIN = -500.0, 2.0, 5.0, 20.0, 3.0
_SCALES = (2, 6)


class HounsfieldWindowd(MapTransform):
    """Map stored CT to a window of Hounsfield units, with only air around the patient.

    The offset to HU is found or given. Padding outside of the scanner's circle becomes air, and so does all that is not
    the body (table, headrest). Then the window is mapped linearly to [0, 1] and clipped.

    Args:
        keys: of channel-first CT volumes ``(1, X, Y, Z)`` with an affine in mm.
        window: lowest and highest value in HU; they become 0 and 1.
        offset: HU = stored value + offset. "auto" finds 0, -1000 or -1024, see :func:`find_ct_offset`. A number is
            used without a check of the intensities.
    """

    def __init__(
        self,
        keys: KeysCollection,
        window: Sequence[float],
        offset: float | str = "auto",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (
            not isinstance(window, (list, tuple))
            or len(window) != 2
            or not np.isfinite(window).all()
            or not window[0] < window[1]
        ):
            raise ValueError(f"window is {window}, expected lowest and highest HU, for example [-150, 250].")
        if offset != "auto" and (isinstance(offset, (str, bool)) or not np.isfinite(offset)):
            raise ValueError(f'ct_offset is {offset!r}, expected a number (HU = stored value + number) or "auto".')
        self.low, self.high = (float(value) for value in window)
        self.offset = offset

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            ct = d[key]
            file = ct.meta.get("filename_or_obj", key)
            stored = ct.as_tensor().float()
            offset = self._find_offset(stored, file) if self.offset == "auto" else self.offset
            hu = replace_padding(stored + offset)
            body = torch.from_numpy(find_body(hu[0], voxel_sizes(np.asarray(ct.affine))))
            hu[0][~body] = AIR
            windowed = ((hu - self.low) / (self.high - self.low)).clamp_(0, 1)
            if windowed.min() == windowed.max():
                raise ValueError(
                    f"{file}: nothing is left in the window {self.low:g} to {self.high:g} HU, the values are "
                    f"{hu.min().item():g} to {hu.max().item():g} HU. Use another --window, or --ct_offset if "
                    "these are not HU."
                )
            d[key] = attach_meta(windowed, ct.affine, ct.meta)
        return d

    @staticmethod
    def _find_offset(stored: torch.Tensor, file: Any) -> float:
        offset = find_ct_offset(stored)
        if offset is None:
            low, median, high = np.quantile(sample_voxels(stored), [0.001, 0.5, 0.999])
            raise ValueError(
                f"{file}: does not look like CT in Hounsfield units (HU): it ranges from {stored.min().item():g} to "
                f"{stored.max().item():g} (0.1st percentile {low:g}, median {median:g}, 99.9th {high:g}). Expected are "
                "air at about -1000, most of the body within -150 to 100 and some bone above 300, or all of these "
                "1000 or 1024 higher. Is it MR? If it is CT, set --ct_offset NUMBER (HU = stored value + NUMBER)."
            )
        if offset:
            warnings.warn(
                f"{file}: stored values look like CT {-offset:g} above Hounsfield units; {offset:g} is added to them. "
                f"To avoid this warning, set --ct_offset {offset:g}.",
                Notice,
                stacklevel=2,
            )
        return offset


def replace_padding(hu: torch.Tensor) -> torch.Tensor:
    """Replace padding, -1024 or less, outside of the scanned region of ``(1, X, Y, Z)`` in HU by air.

    If the volume has air too, exact zeros that reach a corner also count as padding, because resampling leaves them.
    """
    hu = torch.where(hu <= PADDING, AIR, hu)
    corners = (slice(None), *[slice(None, None, max(1, n - 1)) for n in hu.shape[1:]])
    if (hu[corners] == 0).any() and (hu < EMPTY).any():
        pieces, _ = ndimage.label(hu.numpy() == 0)
        sizes = np.bincount(pieces.ravel())
        for piece in np.unique(pieces[corners]):
            # By chance, single voxels of water are 0 as well.
            if piece and sizes[piece] > 0.005 * pieces.size:
                hu[torch.from_numpy(pieces == piece)] = AIR
    return hu


def find_body(hu: torch.Tensor, spacing: Sequence[float]) -> np.ndarray:
    """Find the patient: large, thick parts of the volume above air, with their holes filled.

    Opening removes the thin shells of tables and headrests. Parts with at least a tenth of the largest part's size are
    kept, and their thin parts (ears) are restored. Holes in any plane are filled. A margin of 3 mm keeps the skin.

    Args:
        hu: ``(X, Y, Z)`` in HU.
        spacing: of the three axes in mm.

    Returns:
        Boolean array ``(X, Y, Z)``; True everywhere if there is no air.
    """
    factors = [max(1, int(_GRID / size)) for size in spacing]
    pooled = avg_pool3d(hu[None, None], factors, ceil_mode=True)[0, 0]
    grid = [size * factor for size, factor in zip(spacing, factors, strict=True)]
    above = (pooled > _SURFACE).numpy()
    if above.all() or not above.any():
        return np.ones(hu.shape, dtype=bool)
    mask = _remove_thin_parts(above, grid)
    for axis in range(3):
        plane = ndimage.generate_binary_structure(3, 1)
        plane[tuple([0, 2] if i == axis else slice(None) for i in range(3))] = False
        mask = ndimage.binary_fill_holes(mask, plane)
    mask = _dilate(mask, _MARGIN, grid)
    for axis, (factor, size) in enumerate(zip(factors, hu.shape, strict=True)):
        mask = mask.repeat(factor, axis=axis).take(range(size), axis=axis)
    return mask


def _remove_thin_parts(above: np.ndarray, grid: Sequence[float]) -> np.ndarray:
    core = ndimage.distance_transform_edt(above, sampling=grid) > _THIN
    if not core.any():
        return above
    opened = _dilate(core, _THIN, grid)
    parts, _ = ndimage.label(opened)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = (sizes >= 0.1 * sizes.max())[parts]
    return ndimage.binary_dilation(large, iterations=int(np.ceil(_RESTORE / min(grid))), mask=above)


def _dilate(mask: np.ndarray, radius: float, grid: Sequence[float]) -> np.ndarray:
    if mask.all():
        return mask
    return ndimage.distance_transform_edt(~mask, sampling=grid) <= radius


def check_slice_factor(scale: float) -> None:
    """Raise a ValueError unless the number of thin slices per thick slice is a whole number from 2 to 6."""
    if isinstance(scale, bool) or not isinstance(scale, int) or not _SCALES[0] <= scale <= _SCALES[1]:
        raise ValueError(
            f"scale makes {scale!r} slices from one, expected a whole number from {_SCALES[0]} to {_SCALES[1]}, "
            'for example --scale "[1,1,4]".'
        )


class CheckThickSlicesd(MapTransform):
    """Refuse LR volumes without thick slices, and those whose slices would become thinner than their pixels.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` whose slices run along the last axis.
        scale: [1, 1, n], n thin slices per thick slice.
        models: folder of weights with their overlays. Messages name the overlay that fits. None for training.
        spacing: of the cubes to which results are resampled, in mm, so that they may be coarser; None for no such.
        must_be_whole: whether n must be a whole number.
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale: Sequence[float],
        models: str | os.PathLike | None = None,
        allow_missing_keys: bool = False,
        spacing: float | None = None,
        must_be_whole: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = spacing
        self.scale, self.models = get_slice_factor(scale, must_be_whole), models
        if models is not None:
            check_slice_factor(self.scale)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            *plane, thickness = voxel_sizes(np.asarray(data[key].affine))
            self._check_spacing(thickness, plane, data[key].meta.get("filename_or_obj", key))
        return dict(data)

    def _check_spacing(self, thickness: float, plane: Sequence[float], file: Any) -> None:
        pixel = max(plane)
        finding = f"{file}: slices are {thickness:.4g} mm apart and pixels are {pixel:.4g} mm"
        result = thickness / self.scale
        if thickness * RATIO_ROUNDING < THICK * pixel:
            raise ValueError(
                f"{finding}, isotropic or nearly: no thick slices, which are at least {THICK} times the pixels. This "
                "method makes thick slices thin. Check slice_axis, or leave the volume out. For training, list "
                "thin-slice MR as hr; it is then thickened."
            )
        if result * RATIO_ROUNDING < pixel / THICK:
            raise ValueError(
                f"{finding}; with scale {self.scale:g} slices would be {result:.3g} mm, finer than the plane. "
                f"{self._advise_scale(thickness, plane)}"
            )
        if result > max(THICK * pixel, self.spacing or 0) * RATIO_ROUNDING:
            warnings.warn(
                f"{finding}; with scale {self.scale:g} the result stays anisotropic: slices of {result:.3g} mm. "
                f"{self._advise_scale(thickness, plane)}",
                Notice,
                stacklevel=2,
            )

    def _advise_scale(self, thickness: float, plane: Sequence[float]) -> str:
        """Advice for slices that do not fit the scale; spacings in mm."""
        sides = {factor: (*plane, thickness / factor) for factor in range(_SCALES[0], _SCALES[1] + 1)}
        fitting = [1, 1, min(sides, key=lambda factor: max(sides[factor]) / min(sides[factor]))]
        if fitting[2] == self.scale:
            return "No larger scale has weights."
        scale = f'--scale "{fitting}"'.replace(", ", ",")
        if self.models is None:
            return f"The scale that fits is {scale}."
        overlays = (path for path in sorted(Path(self.models).glob("*.json")) if read_json_object(path)[0] is not None)
        laid = next((path for path in overlays if read_json_object(path)[0].get("scale") == fitting), None)
        if laid is None:
            return f"Weights for {fitting} would fit, and there are none in {self.models}."
        weights, result = laid.with_suffix(".pt").name, thickness / fitting[2]
        return f"The weights for scale 1x1x{fitting[2]}, {weights}, would make slices of {result:.3g} mm."


class ResampleHRd(MapTransform):
    """Bring HR volumes to a spacing, with a low-pass along the axes that become coarser.

    Axes that become coarser are averaged with a Gaussian profile (:class:`~common.degradations.GaussianProfile`). The
    others are interpolated with a cubic spline. The near edge of the field of view stays in place; the far edge moves
    by less than a new voxel. An axis that is right to 1 % is left alone.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` with an affine.
        spacing: of the three axes in mm, three positive numbers in the volume's order.
    """

    def __init__(self, keys: KeysCollection, spacing: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = np.asarray(spacing, dtype=np.float64)
        if self.spacing.shape != (3,) or not (np.isfinite(self.spacing) & (self.spacing > 0)).all():
            raise ValueError(f"spacing is {spacing}, expected three positive numbers in mm, for example [1, 1, 1].")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            affine = np.asarray(d[key].affine, dtype=np.float64)
            factors = self.spacing / voxel_sizes(affine)
            factors[np.abs(factors - 1) < 0.01] = 1
            # Each operator changes its own axes only.
            coarser, finer = GaussianProfile(np.maximum(factors, 1)), GaussianProfile(np.maximum(1 / factors, 1))
            volume = d[key].as_tensor()
            # A whole factor takes whole blocks: what is left over at the far end is less than a new voxel.
            x, y, z = (
                n // f * f if isinstance(f, int) else n for n, f in zip(volume.shape[1:], coarser.factors, strict=True)
            )
            volume = coarser(volume[:, :x, :y, :z])
            affine = finer.compute_hr_affine(coarser.compute_lr_affine(affine))
            d[key] = attach_meta(interpolate(volume, finer), affine, d[key].meta)
        return d
