"""Pictures of images beside each other, with their differences."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .files import escape_text
from .planes import draw_plane, label_ends

_SIZE = 2.2  # inches of a panel's longer side
_SHOWN = 99.5  # percentile of the brightest that a window shows


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
    width, height = _SIZE * size / size.max()
    width = max(width, 1.2)
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
        label = "\n".join(textwrap.wrap(escape_text(name), 26))
        panels[0].text(-0.04, 0.5, label, transform=panels[0].transAxes, rotation=90, ha="right", va="center", size=6)
    for panel, column in zip(axes[0], columns, strict=True):
        panel.set_title("\n".join(textwrap.wrap(escape_text(column), 24)), fontsize=8)
    figure.colorbar(scale, ax=axes, shrink=0.6, aspect=30).ax.tick_params(labelsize=7)
    return figure
