"""A learned degradation as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .files import save_figure


def noise_range(levels: Sequence[float]) -> str:
    """Return the lowest and the highest level of noise in per cent, rounded down to hundredths."""
    low, high = (f"{math.floor(1e4 * level) / 100:.2f}" for level in (min(levels), max(levels)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def degradation_figure(path: str | os.PathLike, about: Mapping[str, Any]) -> None:
    """Draw windows over k-space and kernels.

    Args:
        path: the PNG to write.
        about: ``{"noise", "axes"}`` of :class:`common.handlers.DegradationReport`.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    figure.suptitle(f"learned degradation; noise of the target {noise_range(about['noise'])} of the brightest voxels")
    windows, kernels = figure.subplots(1, 2)
    for name, style, axis in zip("xyz", ("-", "--", ":"), about["axes"], strict=True):
        windows.plot(axis["frequencies"], axis["window"], style, label=name)
        kernel = np.asarray(axis["kernel"])
        kernels.plot(np.arange(kernel.size) - (kernel.size - 1) / 2, kernel, style, marker=".", label=name)
    windows.set(xlabel="cycles per HR voxel", ylabel="window", ylim=(0, 1.05))
    kernels.set(xlabel="HR voxels from the centre", ylabel="kernel")
    windows.legend(title="axis of the volume")
    save_figure(figure, path)
