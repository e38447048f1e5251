"""How planes of a volume are cut and drawn: in radiological orientation, in millimetres."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from ..geometry.tissue import find_tissue
from ..io.images import open_image
from ..io.writing import write_atomically
from ..transforms.scan.extremes import clean_volume

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The planes of a report, and the axis (of R, A, S) that each is perpendicular to."""

PLANES_FILE = "{}_planes.npz"  # of a case
_ENDS = ("LR", "PA", "IS")


def to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permute and flip the axes of a stored volume (X, Y, Z) to the nearest of R, A, S; return it and its affine."""
    orientation = io_orientation(affine)
    return apply_orientation(np.asarray(volume), orientation), affine @ inv_ornt_aff(orientation, volume.shape)


def find_foreground(volume: np.ndarray) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Find the foreground of a volume (X, Y, Z): its median along each axis, and its box, a little wider."""
    mask = find_tissue(volume) if np.ptp(volume) > 0 else np.ones(volume.shape, bool)
    centre, box = [], []
    for axis in range(3):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        cumulative = np.cumsum(profile)
        centre.append(int(np.searchsorted(cumulative, cumulative[-1] / 2)))
        # Positions with under 2 % of the voxels of the fullest one are vessels, wrap-around and noise.
        inside = np.flatnonzero(profile > 0.02 * profile.max())
        first, last = int(inside[0]), int(inside[-1])
        # The margin includes tissue that is darker than the threshold.
        margin = 2 + (last - first) // 20
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, volume.shape[axis])))
    return tuple(centre), tuple(box)


@dataclass
class View:
    """The view of a case: a voxel ``centre`` through which the planes go, and the visible ``box`` around it.

    Args:
        affine: of the grid of both, in R, A, S order, voxel to RAS+ millimetres.
    """

    affine: np.ndarray
    centre: tuple[int, ...]
    box: tuple[slice, ...]

    @classmethod
    def from_volume(cls, volume: np.ndarray, affine: np.ndarray) -> View:
        """The middle of the foreground of a stored volume (X, Y, Z) with this affine."""
        volume, grid = to_ras(volume, affine)
        return cls(grid, *find_foreground(volume))

    @classmethod
    def from_point(cls, volume: np.ndarray, affine: np.ndarray, point: Sequence[float], size: float) -> View:
        """A cube with an edge of ``size`` mm around a point, in voxels of the stored volume, at whose end it is cut."""
        volume, grid = to_ras(volume, affine)
        last = np.array(volume.shape) - 1
        at = np.rint(np.linalg.solve(grid, affine @ [*point, 1.0])[:3]).clip(0, last).astype(int)
        reach = np.maximum(np.rint(size / 2 / voxel_sizes(grid)), 1).astype(int)
        box = map(slice, np.maximum(at - reach, 0).tolist(), (np.minimum(at + reach, last) + 1).tolist())
        return cls(grid, tuple(at.tolist()), tuple(box))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> View:
        """The middle of a scan's foreground, whatever a method cuts off at its ends, in any order of axes."""
        image = nib.squeeze_image(open_image(path))
        volume = clean_volume(np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32), posinf=0.0, neginf=0.0))
        # Single bright voxels must not make the threshold coarse.
        return cls.from_volume(volume.clip(min(float(volume.min()), 0.0), np.quantile(volume, 0.999)), image.affine)

    def cut_panel(self, volume: np.ndarray, affine: np.ndarray) -> Panel:
        """Cut a volume of the same field of view, each voxel at its own place.

        Args:
            volume: stored array of shape (X, Y, Z), of any spacing along the directions of the view's grid.
            affine: its affine, voxel to RAS+ millimetres.
        """
        volume, grid = to_ras(volume, affine)
        onto = np.linalg.solve(self.affine, grid)
        at, box, edges = [], [], []
        for axis, size in enumerate(volume.shape):
            # Voxel i of the volume reaches from first + (i - 0.5) step to first + (i + 0.5) step.
            step, first = onto[axis, axis], onto[axis, 3]
            low, high = (end - 0.5 - first for end in (self.box[axis].start, self.box[axis].stop))
            inside = np.array([np.floor(low / step - 0.499) + 1, np.ceil(high / step + 0.499) - 1]).clip(0, size - 1)
            at.append(int(np.clip(np.floor((self.centre[axis] - first) / step + 0.5), 0, size - 1)))
            box.append(slice(int(inside[0]), int(inside[1]) + 1))
            edges.append((first + step * (inside[0] - 0.5), first + step * (inside[1] + 0.5)))
        planes = tuple(volume[tuple(at[a] if a == n else box[a] for a in range(3))] for n in PLANES.values())
        return Panel(planes, np.array(edges) * voxel_sizes(self.affine)[:, None])


@dataclass
class Panel:
    """Three planes of a volume, as a column of a picture shows them.

    Args:
        planes: an array for each of ``PLANES``.
        edges: first and last edge in mm along R, A, S, from the centre of the view's first voxel, shape (3, 2).
    """

    planes: tuple[np.ndarray, ...]
    edges: np.ndarray


def save_panels(path: str | os.PathLike, panels: Mapping[str, Panel]) -> None:
    """Write panels by name as a NumPy .npz file, whole or not at all."""
    arrays = {f"{name}/edges": panel.edges for name, panel in panels.items()}
    for name, panel in panels.items():
        arrays |= {f"{name}/{plane}": values for plane, values in zip(PLANES, panel.planes, strict=True)}
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def load_panels(path: str | os.PathLike) -> dict[str, Panel]:
    """What :func:`save_panels` wrote, in its order; FileNotFoundError when there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {path}; evaluate the run that should have written it.")
    with np.load(path, allow_pickle=False) as data:
        names = [key.removesuffix("/edges") for key in data if key.endswith("/edges")]
        return {name: Panel(tuple(data[f"{name}/{p}"] for p in PLANES), data[f"{name}/edges"]) for name in names}


def draw_plane(
    axes: Axes, plane: np.ndarray, edges: np.ndarray, spacing: Sequence[float], normal: int, **style
) -> AxesImage:
    """Draw one plane, anterior or superior up, the patient's right (or front) on the left.

    Args:
        axes: where to.
        plane: array of shape (columns, rows): the two axes of R, A, S that are left.
        edges: outer edges of the plane in voxels of the grid that ``spacing`` belongs to, shape (2, 2).
        spacing: millimetres per voxel along R, A, S.
        normal: the axis of R, A, S that the plane is perpendicular to.
        style: ``vmin``, ``vmax`` and ``cmap`` of the picture.
    """
    across = [axis for axis in range(3) if axis != normal]
    extent: Any = [edge * spacing[axis] for axis, pair in zip(across, edges, strict=True) for edge in pair]
    image = axes.imshow(plane.T, origin="lower", extent=extent, interpolation="nearest", **style)
    # The patient faces the reader, and looks to the left in the sagittal plane.
    axes.set_xlim(extent[1], extent[0])
    axes.set_axis_off()
    return image


def label_ends(axes: Axes, normal: int) -> None:
    """Write the anatomical directions on a plane's edges."""
    across, up = (_ENDS[axis] for axis in range(3) if axis != normal)
    # The outline keeps the letters legible on bright tissue.
    outline: Any = [withStroke(linewidth=2, foreground="black")]
    style: dict[str, Any] = {"color": "yellow", "fontsize": 8, "path_effects": outline}
    for x, y, text in ((0.05, 0.5, across[1]), (0.95, 0.5, across[0]), (0.5, 0.94, up[1]), (0.5, 0.06, up[0])):
        axes.text(x, y, text, transform=axes.transAxes, ha="center", va="center", **style)
