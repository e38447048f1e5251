"""Pictures of segmented volumes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from .files import escape_text
from .planes import PLANES, View, draw_plane

_WIDTH = 3.0  # inches of a panel
_OPAQUE = 0.35
_COLOURS = 10  # of matplotlib's cycle


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
