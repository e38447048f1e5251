"""Pictures of volumes beside each other: with their differences, segmentations, and places cut out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nibabel.affines import apply_affine, voxel_sizes

from ...reports.files import escape_text
from ...reports.planes import PLANES, View, draw_plane, label_ends

_SIZE, _PANEL, _WIDTH = 2.2, 1.5, 3.0  # inches of a panel: of differences, of a cut-out, of a segmentation
_ROOM = (1.2, 1.6)  # least width and height in inches, of a title and of a label of a row
_SHOWN = 99.5  # percentile of the brightest that a window shows
_CUT = ("axial", "coronal")  # planes of a cut-out
_OPAQUE = 0.35  # labels over a volume
_COLOURS = 10  # of matplotlib's cycle


def draw_differences(
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[tuple[np.ndarray, bool]]],
    spacing: Sequence[float],
    normal: int,
) -> Figure:
    """Draw rows of images of one plane. Signed images have one colour scale, the others one window of greys in a row.

    Args:
        title: of the picture.
        columns: their titles.
        rows: by their titles: images of shape (columns, rows) along two of R, A, S, and whether each is signed. The
            first that is not signed sets the window.
        spacing: millimetres of a voxel along R, A, S.
        normal: the axis of R, A, S that the plane is perpendicular to.
    """
    shape = next(iter(rows.values()))[0][0].shape
    size = np.array(shape) * [spacing[axis] for axis in range(3) if axis != normal]
    width, height = np.maximum(_SIZE * size / size.max(), _ROOM)
    figure = Figure(
        (len(columns) * (width + 0.1) + 1.2, len(rows) * (height + 0.15) + 1), dpi=130, layout="constrained"
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.suptitle(escape_text(title), fontsize=9)
    signed = [np.abs(image).ravel() for images in rows.values() for image, is_signed in images if is_signed]
    most = float(np.percentile(np.concatenate(signed), _SHOWN)) or 1.0
    edges = np.array([[0, n] for n in shape])
    for panels, (name, images) in zip(axes, rows.items(), strict=True):
        grey = [image for image, is_signed in images if not is_signed]
        top = float(np.percentile(grey[0], _SHOWN)) if grey else 1.0
        for panel, (image, is_signed) in zip(panels, images, strict=True):
            style = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if is_signed else {"cmap": "gray", "vmin": 0}
            drawn = draw_plane(panel, image, edges, spacing, normal, **({"vmax": top} | style))
            if is_signed:
                scale = drawn
        label_ends(panels[0], normal)
        label = "\n".join(textwrap.wrap(escape_text(name), 32))
        panels[0].text(-0.04, 0.5, label, transform=panels[0].transAxes, rotation=90, ha="right", va="center", size=6)
    for panel, column in zip(axes[0], columns, strict=True):
        panel.set_title("\n".join(textwrap.wrap(escape_text(column), 24)), fontsize=8)
    figure.colorbar(scale, ax=axes, shrink=0.6, aspect=30).ax.tick_params(labelsize=7)
    return figure


def draw_cutouts(
    volumes: Mapping[str, tuple[np.ndarray, np.ndarray]], places: Mapping[str, tuple[np.ndarray, float]]
) -> Figure:
    """Draw what lies around some places, a row for each, in several volumes, each voxel at its own place.

    Args:
        volumes: by title, voxels ``(X, Y, Z)`` and affine; the last one's grid gives the position of the planes.
        places: by title, the point in mm, and the edge of the cut-out in mm.
    """
    columns = len(volumes) * len(_CUT)
    figure = Figure(figsize=(_PANEL * columns + 0.6, _PANEL * len(places) + 0.3), dpi=100, layout="constrained")
    panels = figure.subplots(len(places), columns, squeeze=False)
    last, affine = list(volumes.values())[-1]
    for row, (title, (point, edge)) in zip(panels, places.items(), strict=True):
        view = View.from_point(last, affine, apply_affine(np.linalg.inv(affine), point).tolist(), edge)
        spacing = voxel_sizes(view.affine).tolist()
        cut = [(name, view.cut_panel(*volume)) for name, volume in volumes.items()]
        shown = np.concatenate([plane.ravel() for plane in cut[-1][1].planes])
        style: dict[str, Any] = {"cmap": "gray", "vmin": shown.min(), "vmax": max(shown.max(), shown.min() + 1e-9)}
        for n, (name, panel) in enumerate(cut):
            for m, plane in enumerate(_CUT):
                axes, normal = row[n * len(_CUT) + m], PLANES[plane]
                across = [axis for axis in range(3) if axis != normal]
                pixels = panel.planes[list(PLANES).index(plane)]
                draw_plane(
                    axes, pixels, panel.edges[across] / np.array(spacing)[across, None], spacing, normal, **style
                )
                if row[0] is panels[0, 0]:
                    axes.set_title(f"{escape_text(Path(name).name)}\n{plane}", fontsize=7)
        row[0].text(-0.05, 0.5, title, fontsize=7, ha="right", va="center", transform=row[0].transAxes)
    return figure


def draw_segmentations(volumes: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draw volumes with their labels in colour, in three planes through the middle of the labels of the first.

    Args:
        volumes: for each by its name, a row: voxels and labels ``(X, Y, Z)``, and their affine in mm.
    """
    _, labels, affine = next(iter(volumes.values()))
    view = View.from_volume((labels != 0).astype(np.float32), affine)
    figure = Figure(figsize=(_WIDTH * len(PLANES), _WIDTH * len(volumes)), layout="constrained")
    grid = figure.subplots(len(volumes), len(PLANES), squeeze=False)
    for line, (name, (voxels, found, affine)) in zip(grid, volumes.items(), strict=True):
        images, colours = (view.cut_panel(each, affine) for each in (voxels, found))
        top = float(np.quantile(voxels[found != 0], 0.99))
        for axes, image, colour, normal in zip(line, images.planes, colours.planes, PLANES.values(), strict=True):
            edges = np.delete(images.edges, normal, axis=0)
            where = (edges, (1.0, 1.0, 1.0), normal)
            draw_plane(axes, image, *where, vmin=0, vmax=top, cmap="gray")
            shown = np.ma.masked_equal(colour, 0) % _COLOURS
            draw_plane(axes, shown, *where, vmin=0, vmax=_COLOURS - 1, cmap="tab10", alpha=_OPAQUE)
        line[0].set_title(escape_text(name), loc="left", fontsize="small")
    return figure
