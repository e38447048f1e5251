"""Pictures of what results add to their scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .files import escape_text
from .planes import PLANES, View, draw_plane, label_ends

_BRIGHTEST, _LARGEST = 0.999, 0.998  # quantiles
_INCHES = 3.0


def draw_added(volumes: Mapping[str, tuple[np.ndarray, np.ndarray]], affine: np.ndarray) -> Figure:
    """Draw volumes, and over each what was added to the scan: warm colours add, cool colours remove.

    Args:
        volumes: by name, the volume and what was added, each ``(X, Y, Z)`` in the same units. All have the grey window
            and the colours of the first.
        affine: of all.

    Returns:
        A figure with a row for each plane, and two columns for each volume.
    """
    first, added = next(iter(volumes.values()))
    top = float(np.quantile(first, _BRIGHTEST))
    view = View.from_volume(first.clip(min(float(first.min()), 0.0), top), affine)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": min(float(first.min()), 0.0), "vmax": top}
    largest = float(np.quantile(np.abs(added), _LARGEST)) or 1.0
    signed: dict[str, Any] = {"cmap": "seismic", "vmin": -largest, "vmax": largest}
    millimetres = np.ptp(view.cut_panel(first, affine).edges, axis=1)
    # Anterior or superior is up.
    heights = [millimetres[max(axis for axis in range(3) if axis != normal)] for normal in PLANES.values()]
    inches = _INCHES * sum(heights) / millimetres.max()
    figure = Figure(figsize=(2 * _INCHES * len(volumes) + 1, inches + 1), layout="constrained")
    axes = figure.subplots(len(PLANES), 2 * len(volumes), squeeze=False, height_ratios=heights)
    for column, (name, pair) in enumerate(volumes.items()):
        shown, detail = (view.cut_panel(each, affine) for each in pair)
        for row, normal in enumerate(PLANES.values()):
            place: Any = shown.edges[[axis for axis in range(3) if axis != normal]], (1.0, 1.0, 1.0), normal
            for each in axes[row, 2 * column : 2 * column + 2]:
                draw_plane(each, shown.planes[row], *place, **grey)
            strength = (np.abs(detail.planes[row]) / largest).clip(0, 1)
            draw_plane(axes[row, 2 * column + 1], detail.planes[row], *place, alpha=strength.T, **signed)
            label_ends(axes[row, 2 * column], normal)
        axes[0, 2 * column].set_title(escape_text(name), fontsize=9)
        axes[0, 2 * column + 1].set_title("missing in the scan" if column else "added to the scan", fontsize=9)
    figure.colorbar(ScalarMappable(Normalize(-largest, largest), "seismic"), ax=axes, label="units of the scan")
    return figure
