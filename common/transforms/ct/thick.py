"""Check for thick slices, and resample HR volumes to a given spacing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ...degradations import GaussianProfile
from ...io.files import read_object
from ...physics.scale import across_slices
from ...physics.spline import apply_along, upsampling_matrix
from ..scan.volume import with_meta

# Spacings within this ratio count as alike; headers and rotated affines round.
_ALIKE, _ROUNDING = 1.5, 1.001
_SCALES = (2, 6)


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
        scale: thin slices per thick slice, more than 1, whole or not; or the scale [1, 1, n] of a training.
        models: folder of weights with their overlays. Messages name the overlay that fits. None for training.
        allow_missing_keys: whether an entry may lack a key.

    Raises:
        ValueError: when slices are not thick, or would become thinner than the pixels; the message names the file. When
            a training's scale is not [1, 1, n].
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale: float | Sequence[float],
        models: str | os.PathLike | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = scale if isinstance(scale, (int, float)) else across_slices(scale=scale)
        self.models = models

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            *plane, thickness = np.linalg.norm(np.asarray(data[key].affine)[:3, :3], axis=0)
            self._check(thickness, max(plane), data[key].meta.get("filename_or_obj", key))
        return dict(data)

    def _check(self, thickness: float, pixel: float, file: Any) -> None:
        found = f"{file}: slices are {thickness:.4g} mm apart and pixels are {pixel:.4g} mm"
        result = thickness / self.scale
        if thickness * _ROUNDING < _ALIKE * pixel:
            raise ValueError(
                f"{found}, isotropic or nearly: no thick slices, which are at least {_ALIKE} times the pixels. This "
                "method makes thick slices thin. Check slice_axis, or leave the volume out. For training, list "
                "thin-slice MR as hr; it is then thickened."
            )
        if result * _ROUNDING < pixel / _ALIKE:
            raise ValueError(
                f"{found}; with scale {self.scale:g} slices would be {result:.3g} mm, finer than the plane. "
                f"{self._advice(thickness, pixel)}"
            )
        if result > _ALIKE * pixel * _ROUNDING:
            warnings.warn(
                f"{found}; with scale {self.scale:g} the result stays anisotropic: slices of {result:.3g} mm. "
                f"{self._advice(thickness, pixel)}",
                stacklevel=2,
            )

    def _advice(self, thickness: float, pixel: float) -> str:
        """Advice for slices that do not fit the scale; spacings in mm."""
        fitting = [1, 1, int(np.clip(round(thickness / pixel), *_SCALES))]
        if fitting[2] == self.scale:
            return "No larger scale has weights."
        scale = f'--scale "{fitting}"'.replace(", ", ",")
        if self.models is None:
            return f"The scale that fits is {scale}."
        overlays = (path for path in sorted(Path(self.models).glob("*.json")) if read_object(path)[0] is not None)
        laid = next((path for path in overlays if read_object(path)[0].get("scale") == fitting), None)
        if laid is None:
            return f"Weights for {fitting} would fit, and there are none in {self.models}."
        return (
            f"The weights for {scale} would make slices of {thickness / fitting[2]:.3g} mm; with monai.bundle, lay "
            f"their overlay over the config: {laid}."
        )


class ResampleHRd(MapTransform):
    """Bring HR volumes to a spacing, with a low-pass along the axes that become coarser.

    Axes that become coarser are averaged with a Gaussian profile (:class:`~common.degradations.GaussianProfile`). The
    others are interpolated with a cubic spline, which overshoots a little at edges. The near edge of the field of view
    stays in place; the far edge moves by less than a new voxel. An axis that is right to 1 % is left alone.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` with an affine.
        spacing: of the three axes in mm, in the volume's order.
        allow_missing_keys: whether an entry may lack a key.

    Raises:
        ValueError: when ``spacing`` is not three positive numbers.
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
            factors = self.spacing / np.linalg.norm(affine[:3, :3], axis=0)
            factors[np.abs(factors - 1) < 0.01] = 1
            # Each operator changes its own axes only.
            coarser, finer = GaussianProfile(np.maximum(factors, 1)), GaussianProfile(np.maximum(1 / factors, 1))
            volume = d[key].as_tensor()
            # A whole factor takes whole blocks: what is left over at the far end is less than a new voxel.
            x, y, z = (
                n // f * f if isinstance(f, int) else n for n, f in zip(volume.shape[1:], coarser.factors, strict=True)
            )
            volume = coarser(volume[:, :x, :y, :z])
            size = volume.shape[1:]
            axes = zip(size, finer.hr_size(size), finer.factors, finer.offset, strict=True)
            volume = apply_along(volume, [None if f == 1 else upsampling_matrix(n, m, f, o) for n, m, f, o in axes])
            d[key] = with_meta(volume, finer.hr_affine(coarser.lr_affine(affine)), d[key].meta)
        return d
