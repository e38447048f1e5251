"""A volume that is judged, and where it lies."""

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

from ..io.volume_or_series import open_volume

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
    def read(cls, name: str, option: str) -> Volume:
        """Read a file or a DICOM series; voxels that are not finite become 0.

        Args:
            name: the file or folder.
            option: where the user named it, for messages, for example ``--scan``.

        Raises:
            FileNotFoundError, ImportError, ValueError: as :func:`common.io.volume_or_series.open_volume`, or if all
                voxels are equal.
        """
        place = f"judge: {option} {name}"
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

    def is_on_grid_of(self, other: Volume) -> bool:
        """Whether the voxels lie where those of another volume lie."""
        if self.voxels.shape != other.voxels.shape:
            return False
        corners = np.array([*itertools.product(*((0, size - 1) for size in self.voxels.shape))])
        apart = apply_affine(self.affine, corners) - apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max()) < _SAME * self.spacing.min()
