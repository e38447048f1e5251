"""Pictures of degradation kernels, and how far they are from known ones."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ..physics.blur_kernels import compute_kernel_error, describe_kernel
from .files import align_columns, escape_text, save_figure

_MOST = 64


def draw_kernel_figure(path: str | os.PathLike, kernels: Sequence[Mapping[str, Any]], spacing: Sequence[float]) -> None:
    """Draw kernels, at most 64 evenly spaced ones, each on the scale of its own largest value.

    A white ellipse is the half maximum of the best Gaussian, a white cross its centre, a black dot the kernel's middle.

    Args:
        path: the PNG to write.
        kernels: each with "kernel" ``(K, K)``, "volume", "slice", and the keys of
            :func:`~common.physics.blur_kernels.describe_kernel`.
        spacing: of an HR pixel along both axes in mm.
    """
    total = len(kernels)
    if total > _MOST:
        kernels = [kernels[round(i)] for i in np.linspace(0, total - 1, _MOST)]
    columns = min(8, len(kernels))
    rows = math.ceil(len(kernels) / columns)
    figure = Figure(figsize=(1.75 * columns + 0.3, 2.3 * rows + 0.6), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    angles = np.linspace(0, 2 * np.pi, 100)
    for panel, entry in zip(panels, kernels, strict=False):
        kernel = np.asarray(entry["kernel"], dtype=np.float64)
        largest = np.abs(kernel).max()
        panel.imshow(kernel, cmap="coolwarm", vmin=-largest, vmax=largest, aspect=spacing[0] / spacing[1])
        middle = (len(kernel) - 1) / 2
        angle = np.deg2rad(entry["angle"])
        along, across = entry["fwhm"][0] / 2 * np.cos(angles), entry["fwhm"][1] / 2 * np.sin(angles)
        centre = entry["centre"]
        panel.plot(
            middle + centre[1] + np.sin(angle) * along + np.cos(angle) * across,
            middle + centre[0] + np.cos(angle) * along - np.sin(angle) * across,
            color="white",
            linewidth=1,
        )
        panel.plot(middle + centre[1], middle + centre[0], "+", color="white", markersize=7)
        panel.plot(middle, middle, ".", color="black", markersize=3)
        panel.set(xlim=(-0.5, len(kernel) - 0.5), ylim=(len(kernel) - 0.5, -0.5), xticks=[], yticks=[])
        name = Path(entry["volume"]).name.removesuffix(".gz").removesuffix(".nii")
        name = name if entry["slice"] is None else f"{name}, slice {entry['slice']}"
        widths = " x ".join(f"{w:.1f}" for w in entry["fwhm"])
        panel.set_title(
            f"{escape_text(name)}\nFWHM {widths} px, {entry['angle']:.0f}°\ncentre {centre[0]:+.2f}, {centre[1]:+.2f}",
            fontsize=6,
        )
    for panel in panels[len(kernels) :]:
        panel.set_axis_off()
    summary = f"{len(kernels)} of {total} kernels" if len(kernels) < total else f"{total} kernels"
    pixel = " x ".join(f"{mm:.3g}" for mm in spacing)
    figure.suptitle(f"{summary}; 1 px is {pixel} mm (HR)", fontsize=8)
    save_figure(figure, path)


def tabulate_kernel_errors(kernels: torch.Tensor, truth: torch.Tensor, compare_with: Mapping[str, torch.Tensor]) -> str:
    """Tabulate the distance of kernels to the one that made the LR scans, ``|k - k'| / |k'|``.

    Args:
        kernels: the estimated ones, ``(N, K, K)``.
        truth: ``(K, K)``.
        compare_with: further kernels, ``(K, K)`` each, by name.

    Returns:
        The table, to print.
    """
    errors = [compute_kernel_error(kernel, truth) for kernel in kernels]

    def format_line(name: str, kernel: torch.Tensor, error: str) -> list[str]:
        description = describe_kernel(kernel)
        width = " x ".join(f"{w:.2f}" for w in description["fwhm"])
        # A kernel of equal width in all directions has no angle.
        angle = f"{description['angle']:.1f}" if description["fwhm"][0] > 1.02 * description["fwhm"][1] else "-"
        return [name, error, width, angle]

    spread = f"{np.mean(errors):.3f}" + (f" +- {np.std(errors, ddof=1):.3f}" if len(errors) > 1 else "")
    known = format_line("the one that made the scans", truth, "-")
    estimated = format_line(f"estimated ({len(errors)})", kernels.mean(dim=0), spread)
    others = [
        format_line(name, kernel, f"{compute_kernel_error(kernel, truth):.3f}") for name, kernel in compare_with.items()
    ]
    return align_columns([["kernel", "error", "FWHM (px)", "angle"], known, estimated, *others])
