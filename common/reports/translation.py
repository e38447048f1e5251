"""Images translated from one modality to another and back (Wang et al. 2023, fig. 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from .files import save_figure
from .planes import Grid, draw_plane, label_ends

_PANEL = 2.6  # width of a panel in inches


def translation_figure(
    path: str | os.PathLike, rows: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]
) -> None:
    """Show for each modality an image, its translation, and the translation back.

    Args:
        path: the PNG to write.
        rows: by title, images by title and their affine. An image is one plane of a volume across its first stored
            axis, shape (1, Y, Z), in [-1, 1]; the affine is the volume's, voxel to RAS+ millimetres.
    """
    columns = max(len(images) for images, _ in rows.values())
    figure = Figure(figsize=(_PANEL * columns, _PANEL * len(rows) + 0.4), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for panels, (name, (images, affine)) in zip(axes, rows.items(), strict=True):
        grid = Grid(affine)
        normal = int(grid.orientation[0, 0])
        for panel in panels:
            panel.set_axis_off()
        for panel, (title, image) in zip(panels, images.items(), strict=False):
            plane = grid.canonical(image).take(0, axis=normal)
            edges = np.array([(-0.5, n - 0.5) for n in plane.shape])
            draw_plane(panel, plane, edges, grid.spacing, normal, cmap="gray", vmin=-1, vmax=1)
            panel.set_title(title, fontsize=10)
        label_ends(panels[0], normal)
        panels[0].text(-0.04, 0.5, name, transform=panels[0].transAxes, rotation=90, ha="right", va="center")
    save_figure(figure, path)
