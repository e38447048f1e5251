"""The grid that a user wants for a result: cubes of a size, or the grid of a file."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import from_matvec, voxel_sizes
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from ..degradations.base import Degradation
from ..degradations.fitted_profile import BELIEVED_WIDTHS
from ..degradations.profiles import GaussianProfile
from ..geometry.gaussian import compute_coarsening_sigma
from ..geometry.resampling import SplineResampling, make_cubic_grid, resample_volume
from ..io.images import open_image, open_image_or_none
from ..io.nifti_affines import is_scaling
from ..io.slice_thickness import read_profile_width
from ..metrics.data_consistency import measure_scan_difference
from ..physics.noise import estimate_noise_in_air
from ..runtime.errors import Notice
from ..runtime.memory import check_memory
from ..stacks.least_squares import MODEL_ERROR, NOISE_FACTOR, enforce_data_consistency
from .scan.check import advise_memory
from .scan.volume import ORIENTATION, attach_meta, reorient_volume

_COPIES = 17.0  # measured copies of the cubes in float32, held at once, or of a larger network's grid
_ROUNDING = 1.01  # of voxel sizes
_FINEST = 10  # cubes across the scan's finest voxel; more are a mistake of units


def choose_cubes(
    size: Sequence[int], affine: np.ndarray, spacing: float | None = None, grid_file: str | os.PathLike | None = None
) -> tuple[tuple[int, ...], np.ndarray]:
    """Size and affine of the grid of cubes on which a result is made to agree with its scan.

    Args:
        size, affine: of the scan, in mm.
        spacing: edge of the cubes in mm; None for the smallest voxel size of the file.
        grid_file: file whose field of view the cubes fill, along its axes; None for the scan's.

    Raises:
        FileNotFoundError, ValueError: when the file cannot be read or lies outside of the scan, or the spacing is no
            size of voxels finer than the scan's.
    """
    sizes = voxel_sizes(affine)
    if spacing is not None:
        is_number = isinstance(spacing, int | float) and not isinstance(spacing, bool)
        if not (is_number and sizes.min() / _FINEST <= spacing < sizes.max()):
            raise ValueError(
                f"--spacing is {spacing!r}, expected mm from {sizes.min() / _FINEST:.3g} to below {sizes.max():.3g}, "
                f"as the voxels of the scan are {' x '.join(f'{mm:.3g}' for mm in sizes)} mm."
            )
    if grid_file is None and spacing is None:
        raise ValueError("--spacing and --grid_file are both null; give one.")
    if grid_file is None:
        return make_cubic_grid(size, affine, float(spacing))  # type: ignore[arg-type]
    file = open_image(grid_file)
    grid = np.asarray(file.affine, dtype=np.float64)
    if not SplineResampling(file.shape[:3], size, np.linalg.inv(grid) @ affine).find_inside().any():
        raise ValueError(f"--grid_file {grid_file}: its grid lies outside of the scan; name a file that overlaps.")
    return make_cubic_grid(file.shape[:3], grid, float(spacing or voxel_sizes(grid).min()))


def check_axes(file: Any, grid_file: str | os.PathLike | None) -> None:
    """Raise a ValueError for a grid of other axes than a scan's, if the scan's are only assumed.

    The result has no orientation either, so a reader would assume the scan's axes for it.

    Args:
        file: of the scan.
        grid_file: file of the grid; None for none.
    """
    scan = open_image_or_none(file)
    if grid_file is None or scan is None or scan.extra.get("has_orientation", True):
        return
    if not is_scaling(np.linalg.solve(scan.affine, open_image(grid_file).affine)):
        raise ValueError(
            f"{file}: its header gives no orientation, and the axes of --grid_file {grid_file} are not those that are "
            "assumed for it. Write the orientation into the scan, or leave --grid_file out."
        )


class CheckGridd(MapTransform):
    """Refuse scans whose results cannot have the wanted grid, before they are computed.

    Where the grid is finer than the network's, a notice says so.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine.
        degradation: from the network's result to the scan.
        device: where the network runs.
        grid: as for :class:`ResampleResultd`.
    """

    def __init__(
        self, keys: KeysCollection, degradation: Degradation, device: torch.device | str, grid: Mapping[str, Any]
    ) -> None:
        super().__init__(keys)
        self.degradation, self.device, self.grid = degradation, torch.device(device), dict(grid)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            scan = data[key]
            file, affine = scan.meta.get("filename_or_obj", key), np.asarray(scan.affine, dtype=np.float64)
            check_axes(file, self.grid["grid_file"])
            try:
                size, grid = choose_cubes(scan.shape[1:], affine, **self.grid)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
            size = max(size, self.degradation.compute_hr_size(scan.shape[1:]), key=math.prod)
            check_memory(size, _COPIES, self.device, f"{file}: its result", advise_memory)
            cube, made = voxel_sizes(grid)[0], voxel_sizes(self.degradation.compute_hr_affine(affine)).max()
            if cube * _ROUNDING < made:
                warnings.warn(
                    f"{file}: voxels of {cube:.3g} mm are finer than the weights make, {made:.3g} mm; the rest is "
                    "interpolation.",
                    Notice,
                    stacklevel=2,
                )
        return dict(data)


class ResampleResultd(MapTransform):
    r"""Bring a network's result to a wanted grid and make it agree with its scan there.

    With R the cubic splines from the wanted cubes to the network's grid, and A the degradation, cubes x are found with

    .. math:: A\,R\,x = y

    by :func:`common.stacks.enforce_data_consistency`, from the network's result, blurred if the cubes are coarser.
    Where the cubes do not reach, R x is the network's result. The slices' profile is as wide as the protocol says. If
    the degradation is not linear, the result is only resampled. If the file's voxels are no cubes, splines sample the
    cubes there. "scan_difference" and "consistency_error" become those of the new result.

    Args:
        keys: of results ``(1, X, Y, Z)``, normalised as the scan, before :class:`RestoreVolumed`.
        degradation: from the network's result to the scan.
        grid: "spacing" and "grid_file" as for :func:`choose_cubes`.
        reference: key of the scan ``(1, X, Y, Z)``, from :class:`LoadScand`.
    """

    def __init__(
        self, keys: KeysCollection, degradation: Degradation, grid: Mapping[str, Any], reference: str = "image"
    ) -> None:
        super().__init__(keys)
        self.degradation, self.reference, self.grid = degradation, reference, dict(grid)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        scan = d[self.reference]
        scan_affine = np.asarray(scan.affine, dtype=np.float64)
        for key in self.key_iterator(d):
            volume = torch.as_tensor(d[key]).detach()
            made_affine = self.degradation.compute_hr_affine(scan_affine)
            affine: Any
            size, affine = choose_cubes(scan.shape[1:], scan_affine, **self.grid)
            cubes, measured = self._make_cubes(volume[0].float(), made_affine, scan, size, affine)
            d["scan_difference"], d["consistency_error"] = measured
            volume = cubes[None]
            if self.grid["grid_file"] is not None:
                file = open_image(self.grid["grid_file"])
                grid = np.asarray(file.affine, dtype=np.float64)
                on_grid = resample_volume(cubes, affine, file.shape[:3], grid)
                # RestoreVolumed turns axes from the scan's order back to that of its file.
                volume, affine = reorient_volume(on_grid[None], grid, scan.meta[ORIENTATION].numpy())
            d[key] = attach_meta(volume, torch.as_tensor(affine), getattr(d[key], "meta", {}))
        return d

    def _make_cubes(
        self, made: torch.Tensor, made_affine: np.ndarray, scan: MetaTensor, size: Sequence[int], affine: np.ndarray
    ) -> tuple[torch.Tensor, tuple[float, float]]:
        """Resample a network's result to cubes that agree with the scan; return also their difference from it."""
        degradation, measured = self.degradation, scan.as_tensor()[0].to(made)
        width = read_profile_width(scan[None])
        if isinstance(degradation, GaussianProfile) and width and BELIEVED_WIDTHS[0] <= width <= BELIEVED_WIDTHS[1]:
            degradation = GaussianProfile(degradation.factors, width, degradation.offset)
        mm, voxel = voxel_sizes(made_affine), voxel_sizes(affine)[0]
        sigmas = compute_coarsening_sigma(mm, voxel) / mm
        blurred = torch.from_numpy(gaussian_filter(made.cpu().numpy(), sigmas, mode="nearest")).to(made)
        # Cubes that begin up to a voxel before the network's grid, as its first sample lies elsewhere, repeat its end.
        padded = F.pad(blurred[None, None], (1,) * 6, mode="replicate")[0, 0]
        volume = resample_volume(padded, made_affine @ from_matvec(np.eye(3), [-1, -1, -1]), size, affine)
        operator: Any = _Composition(degradation.to(made.device), size, made.shape, np.linalg.inv(affine) @ made_affine)
        rest = made * ~operator.resampling.find_inside(made.device)
        if degradation.is_linear:
            noise = float(estimate_noise_in_air(measured[None, None]).nan_to_num(0.0))
            variance = (NOISE_FACTOR * noise) ** 2 + MODEL_ERROR**2
            volume = enforce_data_consistency(volume, [measured - degradation(rest)], [operator], [variance])
        again = operator.resampling(volume) + rest
        return volume, measure_scan_difference(again, measured, [degradation])


class _Composition:
    """Cubic splines from a volume to a network's grid, then its degradation."""

    def __init__(self, degradation: Degradation, size: Sequence[int], made: Sequence[int], places: np.ndarray) -> None:
        self.degradation, self.resampling = degradation, SplineResampling(size, made, places)

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        return self.degradation(self.resampling(volume))

    def adjoint(self, scan: torch.Tensor) -> torch.Tensor:
        return self.resampling.adjoint(self.degradation.adjoint(scan))
