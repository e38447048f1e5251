"""A volume that is judged, where it lies, and what it was made of."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import SpatialImage

from ..geometry import affines
from ..geometry.labels import resample_labels
from ..geometry.nearest import compute_voxel_map, sample_nearest
from ..geometry.resampling import SplineResampling
from ..io.formats import get_extension
from ..io.read import digest_voxels
from ..metrics.units import match_units
from ..runtime.errors import Notice
from .dicom.volume_or_series import open_volume
from .naming import find_result_of_series
from .pages.page import read_result_record

_SAME = 0.05  # voxels; the corners of one grid differ by less
_BEYOND = 2  # voxels of another grid, by which a volume is continued beyond its ends
_SAME_SIZE = 0.1  # relative; voxels of HR that differ by less from those of a result are as large


@dataclass
class Volume:
    """Voxels ``(X, Y, Z)`` in the units of their file, and their affine (4, 4) in mm.

    Attributes:
        name: as the user wrote it.
        label: in tables and pictures: the name of the file or series.
        missing: where its file holds NaN or infinity, or does not reach, and ``voxels`` are 0; None for nowhere.
        metadata: keys of the sidecar, such as ``SliceThickness`` in mm.
        is_turned: whether its axes have another order than in its file.
    """

    name: str
    voxels: np.ndarray
    affine: np.ndarray
    metadata: Mapping[str, Any]
    label: str = ""
    missing: np.ndarray | None = None
    is_turned: bool = False

    def __post_init__(self) -> None:
        self.label = self.label or Path(self.name).name

    @classmethod
    def read(cls, name: str, option: str, command: str = "judge") -> Volume:
        """Read a file or a DICOM series; voxels that are not finite become 0.

        Args:
            name: the file or folder.
            option: where the user named it, for messages, for example ``--scan``.
            command: of ``mri-sr``, likewise.
        """
        place = f"{command}: {option} {name}"
        image: SpatialImage = open_volume(name, place)
        try:
            stored = np.asarray(image.dataobj, dtype=np.float32)
        except Exception as error:  # nibabel has own errors for each format
            raise ValueError(f"{place}: its voxels cannot be read ({error}); get a whole copy of it.") from None
        voxels, lost = np.nan_to_num(stored, posinf=0.0, neginf=0.0), ~np.isfinite(stored)
        if not np.ptp(voxels):
            raise ValueError(f"{place} is empty: all voxels are {voxels.flat[0]:g}; name another file.")
        label = str(image.extra.get("SeriesName", ""))
        affine = np.asarray(image.affine, dtype=np.float64)
        return cls(name, voxels, affine, image.extra, label, lost if lost.any() else None)

    @cached_property
    def spacing(self) -> np.ndarray:
        """Distances of the voxels' centres in mm, (3,)."""
        return voxel_sizes(self.affine)

    @property
    def millilitres(self) -> float:
        """Volume of a voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def is_file(self) -> bool:
        """Whether it is a file, not a DICOM series."""
        return get_extension(Path(self.name)) is not None

    @property
    def record(self) -> Mapping[str, Any]:
        """What the JSON of a result says about how it was made; empty if there is none. Also of a derived series."""
        return read_result_record(self.name if self.is_file else find_result_of_series(self.name)) or {}

    @property
    def inputs(self) -> list[Mapping[str, Any]]:
        """What a result was made of, by its JSON; empty if that is not known."""
        inputs = self.record.get("Inputs")
        return inputs if isinstance(inputs, list) else []

    @property
    def stacks(self) -> Mapping[str, Mapping[str, Any]]:
        """What the JSON of a result of several stacks says of each, by its name; empty for other results."""
        adapted = self.record.get("Adapted")
        known = adapted.items() if isinstance(adapted, Mapping) else ()
        return {name: stack for name, stack in known if isinstance(stack, Mapping)}

    def find_input(self, other: Volume) -> Mapping[str, Any] | None:
        """What the JSON of this result says of a volume that it was made of; None if it names no such volume."""
        key, value = "SeriesInstanceUID", other.metadata.get("SeriesInstanceUID")
        if other.is_file:
            key, value = "Sha256", digest_voxels(other.name) if self.inputs else None
        return next((each for each in self.inputs if value is not None and each.get(key) == value), None)

    def is_on_grid_of(self, other: Volume) -> bool:
        """Whether the voxels lie where those of another volume lie."""
        if self.voxels.shape != other.voxels.shape:
            return False
        corners = np.array([*itertools.product(*((0, size - 1) for size in self.voxels.shape))])
        apart = apply_affine(self.affine, corners) - apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max()) < _SAME * self.spacing.min()

    def order_like(self, grid: Volume) -> Volume:
        """This volume with its axes in the order of another, if its voxels then lie on those of that; else itself."""
        orientation = affines.find_orientation_on(self.affine, grid.affine)
        if (orientation == [[0, 1], [1, 1], [2, 1]]).all():
            return self
        affine = self.affine @ inv_ornt_aff(orientation, self.voxels.shape)
        voxels = np.ascontiguousarray(apply_orientation(self.voxels, orientation))
        if affines.measure_factors(grid.affine, grid.voxels.shape, affine, voxels.shape) is None:
            return self
        missing = None if self.missing is None else apply_orientation(self.missing, orientation)
        return replace(self, voxels=voxels, affine=affine, missing=missing, is_turned=True)

    def place_on_grid(self, grid: Volume, repeated: float = _BEYOND) -> Volume:
        """This volume on the grid of another, where geometry puts it, by cubic splines; missing where it ends.

        Args:
            grid: the other volume.
            repeated: for how many voxels of the grid the ends are repeated.
        """
        order = ornt_transform(io_orientation(self.affine), io_orientation(grid.affine))  # of parallel axes it is fast
        places = np.linalg.solve(self.affine @ inv_ornt_aff(order, self.voxels.shape), grid.affine)
        reach = repeated * np.abs(places[:3, :3]).sum(axis=1)
        pad = int(np.ceil(reach.max()))
        places[:3, 3] += pad
        turned = torch.from_numpy(np.pad(apply_orientation(self.voxels, order), pad, mode="edge"))
        size = grid.voxels.shape
        resampling = SplineResampling(turned.shape, size, places)
        missing = ~resampling.find_inside(margin=(0.5 + reach - pad).tolist()).numpy()
        if self.missing is not None:
            missing |= sample_nearest(self.missing, self.affine, size, grid.affine)
        voxels = np.where(missing, np.float32(0), resampling(turned).numpy())
        return replace(self, voxels=voxels, affine=grid.affine, missing=missing if missing.any() else None)

    def sample_mask(self, grid: Volume, option: str) -> np.ndarray:
        """The labels of this mask on the grid of another volume, 0 outside.

        A voxel has the label with the greatest share of its volume. A label that has no such voxel, as a lesion that is
        smaller than the voxels of the grid, keeps the one that holds most of it.

        Args:
            grid: the other volume.
            option: that named the mask, for messages.

        Returns:
            Whole numbers ``(X, Y, Z)``, int32.

        Raises:
            ValueError: when the mask has no voxel there.
        """
        labels = self.voxels.astype(np.int32)
        size = grid.voxels.shape
        values = resample_labels(labels, self.affine, size, grid.affine)
        places = compute_voxel_map(grid.affine, self.affine)
        for lost in np.setdiff1d(labels[labels > 0], values):
            centres = np.rint(apply_affine(places, np.argwhere(labels == lost))).astype(int)
            found, counts = np.unique(centres, axis=0, return_counts=True)
            # Of several, that furthest left, in any order of storage.
            order = np.lexsort((*apply_affine(grid.affine, found).round(3).T[::-1], -counts))
            if len(order) and ((first := found[order[0]]) >= 0).all() and (first < size).all():
                values[tuple(first)] = lost
        if not (values > 0).any():
            raise ValueError(
                f"judge: {option} {self.name}: no voxel above 0 lies on {grid.name}; name a mask of this person."
            )
        return values


def check_grid(volume: Volume, result: Volume, option: str) -> None:
    """Refuse a volume that lies on another grid than a result."""
    if not volume.is_on_grid_of(result):
        raise ValueError(
            f"judge: {option} {volume.name} with {volume.voxels.shape} voxels does not lie on the grid of "
            f"{result.name} with {result.voxels.shape}; crop or resample it first."
        )


def match_hr(hr: Volume, result: Volume, scan: Volume | None, command: str = "judge") -> tuple[Volume, str | None]:
    """HR in the units of a scan, if there is one, and on the grid of a result.

    A line says how the units differed, and a notice by how much HR was moved.

    Returns:
        HR; and how its units differed, in words, None if they did not.

    Raises:
        ValueError: its voxels have another size, or it is another contrast, or only one of HR and scan is masked.
    """
    hr = hr.order_like(result)
    _check_size(hr, result, command)
    units = None
    if scan is not None:
        known = None if hr.missing is None else ~hr.missing
        place = f"{command}: --hr {hr.name}"
        voxels, units = match_units(hr.voxels, hr.affine, scan.voxels, scan.affine, place, known)
        hr = replace(hr, voxels=voxels)
        if units is not None:
            print(f"{place}: {units}; it was brought to the units of the scan.", flush=True)
    return hr if hr.is_on_grid_of(result) else _move_hr(hr, result, command), units


def _check_size(hr: Volume, result: Volume, command: str) -> None:
    """Refuse HR with voxels of another size than those of a result."""
    found, expected = (" x ".join(f"{mm:.3g}" for mm in each.spacing) for each in (hr, result))
    step = np.abs(np.linalg.solve(result.affine, hr.affine)[:3, :3]).max(axis=1)
    if np.abs(step - 1).max() > _SAME_SIZE and not np.allclose(hr.spacing, result.spacing, rtol=_SAME_SIZE):
        raise ValueError(
            f"{command}: --hr {hr.name} has voxels of {found} mm, {result.name} of {expected} mm; expected the same. "
            f"Super-resolve with --grid_file {hr.name}."
        )


def _move_hr(hr: Volume, result: Volume, command: str) -> Volume:
    """HR on the grid of a result; a notice says by how much it was moved."""
    offset = np.linalg.solve(result.affine, hr.affine)[:3, 3]
    shift = (offset - np.round(offset)).round(2) + 0.0  # whole voxels are a matter of the field of view
    placed = hr.place_on_grid(result)
    beyond = (
        "" if placed.missing is None else f" {placed.missing.mean():.1%} of the result lie beyond HR, which is 0 there."
    )
    warnings.warn(
        f"{command}: voxels of --hr {hr.name} lie {', '.join(f'{voxels:g}' for voxels in shift)} voxels "
        f"({np.linalg.norm(result.affine[:3, :3] @ shift):.2g} mm) from those of {result.name}; HR was brought to its "
        f"grid, by the positions in the headers and cubic splines.{beyond}",
        Notice,
        stacklevel=2,
    )
    return placed


def measure_factors(scan: Volume, result: Volume, command: str = "judge") -> tuple[list[float], list[float]] | None:
    """Voxels of a result per voxel of its scan, and where the scan's first voxel lies in voxels of the result.

    Returns:
        None if the result was made of this scan, but on a grid of its own.

    Raises:
        ValueError: the result does not lie on the scan.
    """
    found = affines.measure_factors(scan.affine, scan.voxels.shape, result.affine, result.voxels.shape)
    if found is None and not is_made_of(result, scan, command):
        raise ValueError(
            f"{command}: {result.name} with {result.voxels.shape} voxels does not lie on --scan {scan.name} with "
            f"{scan.voxels.shape}: expected the same directions and field of view, and voxels of the same size or "
            "finer. Is it made from this scan?"
        )
    return found


def place_stack(scan: Volume, result: Volume, command: str = "judge") -> Volume:
    """One of several stacks, where it lies on the result of all, by the motion that the JSON records.

    A notice says how far it was moved. A scan of another result stays as it is.

    Raises:
        ValueError: the JSON does not say where the stack lies; the message names the one that can be given.
    """
    found = result.find_input(scan) if result.stacks else None
    if found is None:
        return scan
    name = str(found.get("Name") or found.get("File"))
    stack = result.stacks.get(name, {})
    if "Placed" not in stack:
        if stack.get("Reference"):
            return scan
        names = [other for other, each in result.stacks.items() if "Placed" in each or each.get("Reference")]
        reason = stack.get("LeftOut") or (f"it is a copy of {stack['CopyOf']}" if "CopyOf" in stack else "")
        raise ValueError(
            f"{command}: the JSON of {result.name} does not say where --scan {scan.name} lies on it"
            f"{f', as {name} was left out: {reason}' if reason else ''}; name {' or '.join(names) or 'another stack'}."
        )
    affine = np.asarray(stack["Placed"], dtype=np.float64) @ scan.affine
    corners = np.array([*itertools.product(*((0, size - 1) for size in scan.voxels.shape))])
    far = np.linalg.norm(apply_affine(affine, corners) - apply_affine(scan.affine, corners), axis=1).max()
    if far < _SAME * scan.spacing.min():
        return scan
    beside = f"; its deformation of up to {stack['Deformed']:g} mm is not applied" if "Deformed" in stack else ""
    warnings.warn(
        f"{command}: --scan {scan.name} was moved by up to {far:.1f} mm, to where the JSON of {result.name} says that "
        f"{name} lies{beside}.",
        Notice,
        stacklevel=2,
    )
    return replace(scan, affine=affine)


def check_on_scan(result: Volume, scan: Volume) -> None:
    """Refuse a result that does not lie on its scan, also if it was made of it."""
    if measure_factors(scan, result) is None:
        raise ValueError(
            f"judge: {result.name} has a grid of its own, expected finer voxels of {scan.name}; super-resolve it "
            "without --grid_file and --spacing."
        )


def is_made_of(result: Volume, scan: Volume, command: str = "judge") -> bool:
    """Whether the JSON of a result names the scan, by its voxels or its series; it is refused if it names others.

    Of a scan that was stored in another order of axes since, the JSON cannot tell.
    """
    inputs = result.inputs
    if result.find_input(scan) is not None:
        return True
    if not scan.is_file or not inputs:
        return False
    if all("File" in each for each in inputs) and result.is_turned:
        warnings.warn(
            f"{command}: {result.name} and --scan {scan.name} have another order of axes, so its JSON cannot tell "
            f"whether that is {inputs[0]['File']}, of which it was made.",
            Notice,
            stacklevel=2,
        )
    elif all("File" in each for each in inputs):
        files = " and ".join(each["File"] for each in inputs)
        raise ValueError(
            f"{command}: {result.name} was made of {files}, not of the voxels of --scan {scan.name}; name what it was "
            "made of, or super-resolve this one."
        )
    return False
