"""How planes of a volume are cut and drawn: oriented as radiologists read them, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, io_orientation
from skimage.filters import threshold_otsu

__all__ = ["PLANES", "Grid", "content", "draw_plane", "label_ends"]

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The planes of a report, and the axis (of R, A, S) that each is perpendicular to."""

_ENDS = ("LR", "PA", "IS")


@dataclass
class Grid:
    """Volumes of one HR grid, brought to R, A, S order.

    Args:
        affine: affine of the HR grid, voxel to RAS+ millimetres; where oblique, its nearest axes count.
    """

    affine: np.ndarray

    def __post_init__(self) -> None:
        self.orientation = io_orientation(self.affine)
        order = np.argsort(self.orientation[:, 0])
        self.spacing = voxel_sizes(self.affine)[order]

    def canonical(self, volume: np.ndarray) -> np.ndarray:
        """The array of shape (X, Y, Z) with its axes permuted and flipped to R, A, S."""
        return apply_orientation(np.asarray(volume), self.orientation)

    def lr_edges(
        self, hr_shape: Sequence[int], lr_shape: Sequence[int], factors: Sequence[int], offset: Sequence[float]
    ) -> np.ndarray:
        """Where an LR volume's outer edges lie on the canonical HR grid.

        Args:
            hr_shape: stored shape of the HR volume, (X, Y, Z).
            lr_shape: stored shape of the LR volume.
            factors: HR voxels per LR voxel, by stored axis.
            offset: centre of LR voxel 0 in HR voxels, by stored axis.

        Returns:
            First and last edge in HR voxel coordinates, by axis R, A, S: shape (3, 2).
        """
        edges = np.zeros((3, 2))
        for axis, (target, flip) in enumerate(self.orientation):
            first = offset[axis] - factors[axis] / 2
            pair = np.array([first, first + factors[axis] * lr_shape[axis]])
            edges[int(target)] = pair if flip > 0 else hr_shape[axis] - 1 - pair[::-1]
        return edges

    def cube(
        self, shape: Sequence[int], point: Sequence[float], size: float
    ) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
        """The voxel at a point and a cube around it, on the canonical grid, in the form of :func:`content`.

        Args:
            shape: stored shape of the volume, (X, Y, Z).
            point: voxel coordinates in the stored volume.
            size: edge of the cube in mm; it is cut off where the volume ends.
        """
        centre, box = [0, 0, 0], [slice(0)] * 3
        for axis, (target, flip) in enumerate(self.orientation):
            target, last = int(target), shape[axis] - 1
            at = int(np.clip(round(point[axis] if flip > 0 else last - point[axis]), 0, last))
            reach = max(1, round(size / 2 / self.spacing[target]))
            centre[target], box[target] = at, slice(max(at - reach, 0), min(at + reach, last) + 1)
        return tuple(centre), tuple(box)


def content(volume: np.ndarray) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """Where there is something to see.

    Args:
        volume: array of shape (X, Y, Z).

    Returns:
        A voxel amid the foreground (its median along each axis) and the foreground's box, a little wider.
    """
    mask = volume > threshold_otsu(volume) if np.ptp(volume) > 0 else np.ones(volume.shape, bool)
    centre, box = [], []
    for axis in range(3):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        cumulative = np.cumsum(profile)
        centre.append(int(np.searchsorted(cumulative, cumulative[-1] / 2)))
        # Positions with under 2 % of the fullest one's voxels are vessels, wrap-around and noise.
        inside = np.flatnonzero(profile > 0.02 * profile.max())
        first, last = int(inside[0]), int(inside[-1])
        # The margin holds the tissue that is darker than the threshold.
        margin = 2 + (last - first) // 20
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, volume.shape[axis])))
    return tuple(centre), tuple(box)


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

    Returns:
        The picture.
    """
    across = [axis for axis in range(3) if axis != normal]
    extent = [edge * spacing[axis] for axis, pair in zip(across, edges, strict=True) for edge in pair]
    image = axes.imshow(plane.T, origin="lower", extent=extent, interpolation="nearest", **style)
    # The patient faces the reader, and looks to the left in the sagittal plane.
    axes.set_xlim(extent[1], extent[0])
    axes.set_axis_off()
    return image


def label_ends(axes: Axes, normal: int) -> None:
    """Write the anatomical directions on a plane's edges."""
    across, up = (_ENDS[axis] for axis in range(3) if axis != normal)
    # The outline keeps the letters legible on bright tissue.
    style = {"color": "yellow", "fontsize": 8, "path_effects": [withStroke(linewidth=2, foreground="black")]}
    for x, y, text in ((0.05, 0.5, across[1]), (0.95, 0.5, across[0]), (0.5, 0.94, up[1]), (0.5, 0.06, up[0])):
        axes.text(x, y, text, transform=axes.transAxes, ha="center", va="center", **style)
