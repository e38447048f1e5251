"""A volume that is judged, where it lies, and what it was made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.spatialimages import SpatialImage
from scipy.ndimage import map_coordinates

from ..geometry import affines
from ..io.formats import get_extension
from ..io.read import digest_voxels
from ..io.volume_or_series import open_volume
from ..reports.viewer import read_result_record

_SAME = 0.05  # voxels; the corners of one grid differ by less


@dataclass
class Volume:
    """Voxels ``(X, Y, Z)`` in the units of their file, and their affine (4, 4) in mm.

    Attributes:
        name: as the user wrote it.
        label: in tables and pictures: the name of the file or series.
        missing: where its file holds NaN or infinity, which are 0 in ``voxels``; None for nowhere.
        metadata: keys of the sidecar, such as ``SliceThickness`` in mm.
    """

    name: str
    voxels: np.ndarray
    affine: np.ndarray
    metadata: Mapping[str, Any]
    label: str = ""
    missing: np.ndarray | None = None

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
        """What the JSON of a result says about how it was made; empty if there is none."""
        return (read_result_record(self.name) or {}) if self.is_file else {}

    @property
    def inputs(self) -> list[Mapping[str, Any]]:
        """What a result was made of, by its JSON; empty if that is not known."""
        inputs = self.record.get("Inputs")
        return inputs if isinstance(inputs, list) else []

    def is_on_grid_of(self, other: Volume) -> bool:
        """Whether the voxels lie where those of another volume lie."""
        if self.voxels.shape != other.voxels.shape:
            return False
        corners = np.array([*itertools.product(*((0, size - 1) for size in self.voxels.shape))])
        apart = apply_affine(self.affine, corners) - apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max()) < _SAME * self.spacing.min()

    def sample_mask(self, grid: Volume, option: str) -> np.ndarray:
        """The nearest labels of this mask on the grid of another volume, 0 outside."""
        places = np.linalg.inv(self.affine) @ grid.affine
        index = np.indices(grid.voxels.shape).reshape(3, -1)
        at = places[:3, :3] @ index + places[:3, 3:]
        values = map_coordinates(self.voxels, at, order=0, mode="grid-constant", cval=0.0).reshape(grid.voxels.shape)
        if not (values > 0).any():
            raise ValueError(
                f"judge: {option} {self.name}: no voxel above 0 lies on {grid.name}; name a mask of this person."
            )
        return values


def check_grid(volume: Volume, result: Volume, option: str, command: str = "judge") -> None:
    """Refuse a volume that lies on another grid than a result."""
    if not volume.is_on_grid_of(result):
        raise ValueError(
            f"{command}: {option} {volume.name} with {volume.voxels.shape} voxels does not lie on the grid of "
            f"{result.name} with {result.voxels.shape}; crop or resample it first."
        )


def measure_factors(scan: Volume, result: Volume, command: str = "judge") -> tuple[list[float], list[float]]:
    """Voxels of a result per voxel of its scan, and where the scan's first voxel lies in voxels of the result.

    Raises:
        ValueError: the result does not lie on the scan.
    """
    found = affines.measure_factors(scan.affine, scan.voxels.shape, result.affine, result.voxels.shape)
    if found is None:
        raise ValueError(
            f"{command}: {result.name} with {result.voxels.shape} voxels does not lie on --scan {scan.name} with "
            f"{scan.voxels.shape}: expected the same directions and field of view, and voxels of the same size or "
            "finer. Is it made from this scan?"
        )
    return found


def is_made_of(result: Volume, scan: Volume, command: str = "judge") -> bool:
    """Whether the JSON of a result names the scan, by its voxels or its series; it is refused if it names others."""
    inputs = result.inputs
    if not scan.is_file:
        uid = scan.metadata.get("SeriesInstanceUID")
        return uid is not None and uid in [each.get("SeriesInstanceUID") for each in inputs]
    if not inputs or digest_voxels(scan.name) in [each.get("Sha256") for each in inputs]:
        return bool(inputs)
    if all("File" in each for each in inputs):
        raise ValueError(
            f"{command}: {result.name} was made of {inputs[0]['File']}, whose voxels are not those of --scan "
            f"{scan.name}; name that scan, or super-resolve this one again."
        )
    return False
