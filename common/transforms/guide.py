"""Bring a guide, a finer scan of the same subject in another contrast, onto the grid of the result."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.orientations import io_orientation
from torch.nn import functional

from ..degradations.base import Degradation
from ..geometry.gaussian import average_gaussian, compute_coarsening_sigma
from ..geometry.registration.contrasts import GAIN, find_misplacement, register_contrasts
from ..geometry.registration.one_person import LEAST_MUTUAL_INFORMATION
from ..geometry.resampling import GRID_TOLERANCE, resample_volume
from ..io.naming import make_case_stem
from ..runtime.errors import Notice
from .register import write_quality
from .scan.volume import attach_meta, reorient_volume

# Normalised intensity above which a voxel shows tissue and not air.
_TISSUE = 0.05
_COVERED = 0.95  # least share of the LR scan's tissue that must lie in the guide's field of view
# A guide is too coarse if its spacing is more than this times that of the volume that it guides.
_COARSER = 1.25


class ShiftGuided(MapTransform):
    """Misalign a guide by the same distance along each patient axis, to simulate errors of registration.

    Only the affine changes. The signs are derived from the subject, or else from the file's name, so they are the same
    in every run.

    Args:
        keys: of guides ``(1, X, Y, Z)`` with an affine.
        millimetres: distance along each of left-right, anterior-posterior and superior-inferior; 0 moves nothing.

    References:
        Iwamoto et al. 2022, table V.
    """

    def __init__(self, keys: KeysCollection, millimetres: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.millimetres = millimetres

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            guide = d[key]
            subject = d.get("subject") or Path(guide.meta["filename_or_obj"]).name
            bits = zlib.crc32(str(subject).encode())
            signs = [1 if bits >> axis & 1 else -1 for axis in range(3)]
            affine = np.asarray(guide.affine, dtype=np.float64).copy()
            affine[:3, 3] += self.millimetres * np.array(signs)
            d[key] = attach_meta(guide.as_tensor(), affine, guide.meta)
        return d


class ResampleGuided(MapTransform):
    """Resample a guide to the HR grid of an LR scan, through both affines.

    Where the grid's voxels are longer than the guide's (thick slices), the guide is first blurred by a Gaussian to
    their length. Then it is resampled once with cubic splines and clipped to its own range, because splines overshoot.
    Outside its field of view it is 0. A guide that is already on the grid is only cropped.

    Args:
        keys: of guides ``(1, X, Y, Z)`` with an affine.
        reference: key of the LR scan ``(1, X, Y, Z)``, in about [0, 1], its axes ordered as the factors are.
        degradation: from HR to LR.
        register: whether to register the guide rigidly to the LR scan first. "auto" does so, with a warning, only if
            :func:`find_misplacement` finds the guide misaligned.
        quality_dir: folder for the quality of the registration, ``<LR scan's name>_registration.json``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        degradation: Degradation,
        register: bool | str = False,
        quality_dir: str | os.PathLike | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference
        self.degradation = degradation
        if register not in (True, False, "auto"):
            raise ValueError(f"register is {register!r}, expected True, False or auto.")
        self.register = register
        self.quality_dir = quality_dir

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        lr = d[self.reference]
        grid = np.asarray(self.degradation.compute_hr_affine(lr.affine), dtype=np.float64)
        size = self.degradation.compute_hr_size(lr.shape[1:])
        for key in self.key_iterator(d):
            guide = _reorient_guide(d[key], grid)
            of = {"lr": (lr, self.reference), "guide": (guide, key)}
            names = {name: volume.meta.get("filename_or_obj", other) for name, (volume, other) in of.items()}
            self._check_spacing(lr, guide, names)
            quality: dict[str, Any] = {}
            if self.register:
                move = self._align_guide if self.register == "auto" else self._register_and_check_guide
                guide, quality = move(lr, guide, names)
            if quality:
                write_quality(self.quality_dir, d.get("name") or make_case_stem(names["lr"], d.get("subject")), quality)
            self._check_coverage(lr, guide, names)
            volume = _resample_guide(guide.as_tensor()[0], np.asarray(guide.affine, dtype=np.float64), grid, size)
            d[key] = attach_meta(volume[None], grid, guide.meta)
        return d

    def _align_guide(
        self, lr: MetaTensor, guide: MetaTensor, names: Mapping[str, Any]
    ) -> tuple[MetaTensor, dict[str, Any]]:
        """The guide, registered if it is misaligned, and the quality of the registration, empty if there was none."""
        finding = find_misplacement(lr, guide)
        if finding["step"] == "none":
            return guide, {}  # without overlap, the check of coverage raises the error
        if not finding["misplaced"]:
            _warn_if_unlike(finding["similarity"], names)
            return guide, {}
        why = f"a step of {finding['step']} makes the two {finding['gain']:.1%} more alike"
        try:
            registered, quality = self._register_and_check_guide(lr, guide, names)
        except ImportError as error:
            raise ImportError(
                f"{names['guide']}: the guide does not lie on {names['lr']} ({why}); {error} Or register it yourself, "
                "leave the guide out, or use it unregistered (--register False)."
            ) from None
        shift, angle = np.linalg.norm(quality["translation_mm"]), quality["rotation_degrees"]
        warnings.warn(
            f"guide registered, {shift:.1f} mm and {angle:.1f} degrees away; {names['guide']} did not lie on "
            f"{names['lr']}: {why}. Compare the result with one without the guide.",
            Notice,
            stacklevel=2,
        )
        return registered, quality

    def _register_and_check_guide(
        self, lr: MetaTensor, guide: MetaTensor, names: Mapping[str, Any]
    ) -> tuple[MetaTensor, dict[str, Any]]:
        """The registered guide and the quality of the registration. Raises a ValueError if it is still misaligned."""
        affine, quality = register_contrasts(lr, guide)
        registered = attach_meta(guide.as_tensor(), affine, guide.meta)
        # Rigid registration leaves up to about half a millimetre.
        left = find_misplacement(lr, registered, steps=(2.0,))
        if left["misplaced"]:
            raise ValueError(
                f"{names['guide']}: the guide cannot be registered to {names['lr']}: after registration, a step of "
                f"{left['step']} still makes the two {left['gain']:.1%} more alike, expected at most {GAIN:.0%}. Are "
                "both of one person? Leave the guide out, or use it unregistered (--register False)."
            )
        _warn_if_unlike(left["similarity"], names)
        return registered, {**quality, "similarity": left["similarity"]}

    def _check_spacing(self, lr: MetaTensor, guide: MetaTensor, names: Mapping[str, Any]) -> None:
        """Refuse a guide that is coarser than the LR scan, warn of one that is coarser than the result."""
        columns, lr_columns = (np.asarray(volume.affine, dtype=np.float64)[:3, :3] for volume in (guide, lr))
        factors = np.array(self.degradation.factors, dtype=np.float64)
        finer = factors > 1
        spacing = np.linalg.norm(lr_columns, axis=0)
        # Distance between the guide's samples along each direction.
        apart = 1 / np.linalg.norm(np.linalg.solve(columns, lr_columns / spacing), axis=0)
        sizes = f"{np.round(apart[finer], 3).tolist()} mm"
        if np.any(apart[finer] > _COARSER * spacing[finer]):
            raise ValueError(
                f"{names['guide']}: the guide is coarser than the scan that it should guide, {names['lr']}; are the "
                f"two swapped? Along the axes to be refined, the guide's samples are {sizes} apart, the scan's "
                f"{np.round(spacing[finer], 3).tolist()} mm. Give the finer scan as the guide."
            )
        if np.any(apart[finer] > _COARSER * (spacing / factors)[finer]):
            warnings.warn(
                f"{names['guide']}: along the axes to be refined, the guide's samples are {sizes} apart, those of the "
                f"result of {names['lr']} {np.round((spacing / factors)[finer], 3).tolist()} mm; the guide adds "
                "no detail below its own spacing.",
                Notice,
                stacklevel=2,
            )

    def _check_coverage(self, lr: MetaTensor, guide: MetaTensor, names: Mapping[str, Any]) -> None:
        """Refuse a guide whose field of view (to the edges of its voxels) does not cover the LR scan's tissue."""
        affine = np.asarray(guide.affine, dtype=np.float64)
        to_guide = np.linalg.solve(affine, np.asarray(lr.affine, dtype=np.float64))
        tissue = np.argwhere(lr.as_tensor()[0].numpy() > _TISSUE)
        index = tissue @ to_guide[:3, :3].T + to_guide[:3, 3]
        first, last = -0.5, np.array(guide.shape[1:]) - 0.5
        covered = ((index >= first) & (index <= last)).all(axis=1).mean()
        if covered >= _COVERED:
            return
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        beyond = [*(spacing * (index - last).max(axis=0)), *(spacing * (first - index).max(axis=0))]
        sides = [*nib.aff2axcodes(affine), *nib.aff2axcodes(-affine)]
        out = ", ".join(f"{mm:.1f} mm to {side}" for mm, side in zip(beyond, sides, strict=True) if mm > 0)
        nothing = "" if covered else " (they do not overlap at all)"
        advice = "" if self.register or not covered else ", or let the guide be moved onto the scan: --register True"
        raise ValueError(
            f"{names['guide']}: the guide covers {covered:.1%} of the tissue of {names['lr']}{nothing}, expected at "
            f"least {_COVERED:.0%}; it sticks out of the guide by up to {out}. Check that both files are of one "
            f"subject and session and that their headers are right{advice}."
        )


def _warn_if_unlike(similarity: float, names: Mapping[str, Any]) -> None:
    """Warn of a guide that lies on its scan, but may be of another person."""
    if similarity < LEAST_MUTUAL_INFORMATION:
        warnings.warn(
            f"{names['guide']}: the guide hardly resembles {names['lr']}: similarity {similarity:.2f}, expected at "
            f"least {LEAST_MUTUAL_INFORMATION} for one person. Are both of one person? If not, leave the guide out.",
            stacklevel=2,
        )


def _reorient_guide(guide: MetaTensor, grid: np.ndarray) -> MetaTensor:
    """A guide with its axes reordered and mirrored to match a grid, so that its storage order has no influence."""
    orientation = io_orientation(np.linalg.solve(grid, np.asarray(guide.affine, dtype=np.float64)))
    return attach_meta(*reorient_volume(guide.as_tensor(), guide.affine, orientation), guide.meta)


def _resample_guide(guide: torch.Tensor, affine: np.ndarray, grid: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """Resample a guide ``(X, Y, Z)`` with its affine to a grid with another affine and size."""
    matrix = np.linalg.solve(affine, grid)
    is_larger = all(n <= m for n, m in zip(size, guide.shape, strict=True))
    if is_larger and np.abs(matrix - np.eye(4)).max() < GRID_TOLERANCE:
        return guide[tuple(map(slice, size))].clone()
    # Along the axes of the grid, not of the guide: across tilted thick slices alone, and never in their plane.
    length = np.linalg.norm(grid[:3, :3], axis=0)
    directions = grid[:3, :3] / length
    widths = np.linalg.norm(affine[:3, :3].T @ directions, axis=0)
    along = np.linalg.solve(affine[:3, :3], directions * compute_coarsening_sigma(widths, length))
    blurred = guide
    if np.abs(along).max() > 0.1:  # in voxels of the guide; a tenth of one is nothing
        covariance = along @ along.T
        margin = np.ceil(4 * np.sqrt(np.diag(covariance))).astype(int).tolist()
        padding = [m for m in reversed(margin) for _ in range(2)]
        padded = functional.pad(guide[None, None], padding, mode="replicate")[0, 0]
        inner = tuple(slice(m, m + n) for m, n in zip(margin, guide.shape, strict=True))
        blurred = average_gaussian(padded, covariance)[inner]
    return resample_volume(blurred, affine, size, grid).clamp(min(float(guide.min()), 0.0), float(guide.max()))
