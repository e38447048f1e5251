"""The middle slices of many volumes, to see at a glance what a cohort is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from ...reports.files import escape_text, save_figure

_COLUMNS, _INCHES = 8, 1.6


def draw_middle_slices(path: str | os.PathLike, files: Sequence[str | os.PathLike]) -> None:
    """Write a picture of the middle slice of each file, in turn sagittal, coronal and axial.

    Args:
        path: PNG to write.
        files: NIfTI volumes, one or more.
    """
    rows = math.ceil(len(files) / _COLUMNS)
    figure = Figure((_COLUMNS * _INCHES, rows * (_INCHES + 0.2)), layout="tight")
    for number, file in enumerate(files):
        image = nib.as_closest_canonical(nib.load(file))
        axis = number % 3
        plane = np.take(np.asarray(image.dataobj, dtype=np.float32), image.shape[axis] // 2, axis)
        across, up = np.delete(image.header.get_zooms()[:3], axis)
        axes = figure.add_subplot(rows, _COLUMNS, number + 1)
        axes.imshow(plane.T, cmap="gray", origin="lower", aspect=up / across, vmax=np.quantile(plane, 0.998))
        axes.set_title(escape_text(os.path.basename(file).split(".")[0]), fontsize=6)
        axes.set_axis_off()
    save_figure(figure, path)
