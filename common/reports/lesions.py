"""Pictures of lesions: cut out of several volumes, and how well they are detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nibabel.affines import apply_affine, voxel_sizes

from .files import escape_text
from .planes import PLANES, View, draw_plane

_PANEL = 1.5  # inches
_CUT = ("axial", "coronal")


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


def draw_detectability(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw detectability, recovered contrast and share lost against the size of lesions; a point is a person.

    Args:
        rows: of the table of inserted lesions.
    """
    contrasts = sorted({row["contrast_percent"] for row in rows})
    drawn = {"auc": "area under ROC curve", "lost": "share lost", "recovered": "share of contrast"}
    names = list(dict.fromkeys(row["result"] for row in rows))
    figure = Figure(figsize=(3.6 * len(drawn), 2.8 * len(contrasts)), dpi=100, layout="constrained")
    panels = figure.subplots(len(contrasts), len(drawn), squeeze=False, sharex=True)
    for line, contrast in zip(panels, contrasts, strict=True):
        for axes, (column, title) in zip(line, drawn.items(), strict=True):
            for n, name in enumerate(names):
                some = [row for row in rows if row["result"] == name and row["contrast_percent"] == contrast]
                sizes = sorted({row["diameter_mm"] for row in some})
                values = [[row[column] for row in some if row["diameter_mm"] == size] for size in sizes]
                axes.plot(sizes, list(map(np.mean, values)), color=f"C{n % 10}", label=escape_text(name))
                for size, points in zip(sizes, values, strict=True):
                    axes.plot([size] * len(points), points, ".", color=f"C{n % 10}", markersize=4)
            axes.set_ylabel(title, fontsize=8)
            axes.set_title(f"contrast {contrast:+.0f} %", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("diameter (mm)", fontsize=8)
    panels[0][0].legend(fontsize=7)
    return figure
