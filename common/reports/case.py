"""Pictures of one case: planes with error maps, and a line profile."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from nibabel.affines import from_matvec

from .files import escape_text, save_figure
from .planes import PLANES, Panel, View, draw_plane, label_ends

_PANEL = 1.9  # width of a panel in inches


def draw_case(
    path: str | os.PathLike,
    lr: np.ndarray,
    cubic: np.ndarray,
    sr: np.ndarray,
    hr: np.ndarray | None,
    name: str,
    scores: Mapping[str, Mapping[str, float]],
    affine: np.ndarray,
    factors: Sequence[int],
    offset: Sequence[float],
    zoom: tuple[Sequence[float], float] | None = None,
) -> None:
    """Show a case in three planes: LR, cubic, SR and HR, and the errors of cubic and SR on one colour scale.

    The planes go through the middle of the foreground and are cropped to it, or to a cube around a point.

    Args:
        path: the PNG to write.
        lr: LR volume, shape (x, y, z), normalised to [0, 1] like all others; drawn voxel by voxel at its own place.
        cubic, sr: its cubic interpolation and its super-resolution, shape (X, Y, Z).
        hr: the ground truth, shape (X, Y, Z); without it the picture has neither HR nor errors.
        name: the case's name, for the title.
        scores: ``psnr`` (dB) and ``ssim`` of ``"cubic"`` and ``"sr"``, shown above them where given.
        affine: affine of the HR grid, voxel to RAS+ millimetres.
        factors: HR voxels per LR voxel along the stored axes.
        offset: centre of LR voxel 0 in HR voxels along the stored axes.
        zoom: the point, in voxels of the stored HR grid, and the edge of the cube in mm.
    """
    view = View.from_volume(sr if hr is None else hr, affine) if zoom is None else View.from_point(sr, affine, *zoom)
    volumes = {"cubic": cubic, "SR": sr} | ({} if hr is None else {"HR": hr})
    images = {title: view.cut_panel(volume, affine) for title, volume in volumes.items()}
    images = {"LR": view.cut_panel(lr, affine @ from_matvec(np.diag(np.array(factors, float)), offset)), **images}
    errors = (
        {} if hr is None else {title: compute_error_panel(images[title], images["HR"]) for title in ("cubic", "SR")}
    )
    draw_panels(path, name, images, errors, {"SR" if k == "sr" else k: score for k, score in scores.items()})


def compute_error_panel(panel: Panel, truth: Panel) -> Panel:
    """The absolute difference of two panels of one grid."""
    return Panel(tuple(np.abs(a - b) for a, b in zip(panel.planes, truth.planes, strict=True)), panel.edges)


def draw_panels(
    path: str | os.PathLike,
    name: str,
    images: Mapping[str, Panel],
    errors: Mapping[str, Panel],
    scores: Mapping[str, Mapping[str, float]],
) -> None:
    """Draw panels side by side, in one grey window, and their errors on one colour scale.

    Up to two error panels are drawn on the right; more are drawn below their images. Only the region that all panels
    cover is drawn. The patient's right is on the left.

    Args:
        path: the PNG to write.
        name: the case's name, for the title.
        images: by their titles, normalised to [0, 1]. ``"HR"``, or without it the last, sets the grey window;
            ``"guide"``, another contrast, has one of its own.
        errors: errors by the titles of their images.
        scores: ``psnr`` (dB) and ``ssim`` of images, shown above them if given.
    """
    # Bright spots (fat, vessels) must not darken the tissue, nor single voxels hide the errors.
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": _find_brightness([images.get("HR", list(images.values())[-1])])}
    heat = {"cmap": "inferno", "vmin": 0.0, "vmax": _find_brightness(errors.values()) if errors else 1.0}
    below = len(errors) > 2
    columns = len(images) + (0 if below else len(errors))
    edges = np.array([panel.edges for panel in images.values()])
    window = np.stack([edges[..., 0].max(axis=0), edges[..., 1].min(axis=0)], axis=-1)
    size = np.ptp(window, axis=1)
    ratios: Any = [max(size[2 if n < 2 else 1] / size[1 if n == 0 else 0], 0.2) for n in PLANES.values()]
    ratios = np.repeat(ratios, 2 if below else 1)
    titles = {title: textwrap.wrap(escape_text(title), 22) for title in images}
    lines = max(map(len, titles.values())) + 1
    left, right, top, bottom = 0.3, 0.8 if errors else 0.1, 0.48 + 0.16 * lines, 0.1
    width, height = columns * _PANEL + left + right, sum(ratios) * _PANEL + top + bottom
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.subplots(
        len(ratios),
        columns,
        squeeze=False,
        gridspec_kw={
            "height_ratios": ratios,
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": 0.03,
            "hspace": 0.03,
        },
    )
    figure.suptitle(escape_text(name), y=1 - 0.08 / height, va="top", fontsize=12)
    for panel in axes.ravel():
        panel.set_axis_off()

    def draw_panel(axes: Axes, panel: Panel, row: int, normal: int, style: Mapping) -> AxesImage:
        edges, limits = (np.delete(ends, normal, axis=0) for ends in (panel.edges, window))
        image = draw_plane(axes, panel.planes[row], edges, (1.0, 1.0, 1.0), normal, **style)
        axes.set(xlim=limits[0][::-1], ylim=limits[1])
        return image

    for row, (plane, normal) in enumerate(PLANES.items()):
        image_axes, error_axes = axes[row * (2 if below else 1)], axes[row, len(images) :]
        if below:
            error_axes = axes[2 * row + 1, [list(images).index(title) for title in errors]]
        for panel, (title, image) in zip(image_axes, images.items(), strict=False):
            style = {**grey, "vmax": _find_brightness([image])} if title == "guide" else grey
            draw_panel(panel, image, row, normal, style)
            if row == 0:
                score = scores.get(title)
                caption = f"{score['psnr']:.2f} dB, {score['ssim']:.4f}" if score else ""
                panel.set_title("\n".join([*titles[title], caption]), fontsize=10)
        for panel, (title, image) in zip(error_axes, errors.items(), strict=True):
            error_image = draw_panel(panel, image, row, normal, heat)
            if row == 0 and not below:
                panel.set_title(f"|{escape_text(title)} - HR|\n", fontsize=10)
        label_ends(image_axes[0], normal)
        label = {"rotation": 90, "ha": "right", "va": "center"}
        image_axes[0].text(-0.05, 0.5, plane, transform=image_axes[0].transAxes, **label)
        if below:
            error_axes[0].text(-0.05, 0.5, "|image - HR|", transform=error_axes[0].transAxes, **label)
    if errors:
        bar = figure.add_axes((1 - (right - 0.1) / width, bottom / height, 0.14 / width, 1 - (top + bottom) / height))
        figure.colorbar(error_image, cax=bar, extend="max")
    save_figure(figure, path)


def _find_brightness(panels: Iterable[Panel]) -> float:
    """The 99.8th percentile of all that is shown."""
    return float(np.percentile(np.concatenate([plane.ravel() for panel in panels for plane in panel.planes]), 99.8))


def _find_steepest_line(lines: np.ndarray, span: int) -> tuple[np.intp, ...]:
    """Return the index of the line with the largest changes over this many samples, and of its first sample."""
    steps = np.abs(np.diff(lines, axis=-1)).cumsum(axis=-1)
    before = np.pad(steps, [(0, 0)] * (lines.ndim - 1) + [(1, 0)])[..., : steps.shape[-1] - span + 2]
    steepness = steps[..., span - 2 :] - before
    return np.unravel_index(np.argmax(steepness), steepness.shape)


def draw_profile(path: str | os.PathLike, name: str, images: Mapping[str, Panel]) -> None:
    """Plot the intensities of several methods along one line of their panels, where HR has the steepest edges.

    The line runs along the axis with the largest super-resolution factor, in the coronal or the axial plane.

    Args:
        path: the PNG to write.
        name: the case's name, for the title.
        images: by their titles, normalised to [0, 1], with ``"HR"``, and ``"LR"`` or ``"LR (...)"``. The first LR is
            drawn as dots at its samples, and others are left out.
    """
    hr = images["HR"]
    sizes = {title: np.array([*image.planes[0].shape, image.planes[1].shape[1]]) for title, image in images.items()}
    lrs = [title for title in images if title == "LR" or title.startswith("LR (")]
    axis = int(np.argmax(sizes["HR"] / sizes[lrs[0]]))
    row, normal = (1, 1) if axis == 2 else (0, 2)
    side = next(a for a in range(3) if a not in (axis, normal))

    def select_plane(image: Panel) -> np.ndarray:  # the plane, with the line's axis last
        return image.planes[row] if axis > side else image.planes[row].T

    def compute_positions(image: Panel, which: int, size: int) -> np.ndarray:  # centres of a panel's voxels in mm
        first, last = image.edges[which]
        return first + (np.arange(size) + 0.5) * (last - first) / size

    lines = select_plane(hr)
    span = min(lines.shape[1], 64)
    line, start = _find_steepest_line(lines, span)
    at = compute_positions(hr, side, len(lines))[line]
    ends, direction = (("right to left", -1), ("posterior to anterior", 1), ("inferior to superior", 1))[axis]

    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    picture, plot = figure.subplots(1, 2, width_ratios=[1, 2.6])
    colours = itertools.cycle(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    window = compute_positions(hr, axis, lines.shape[1])[start : start + span] * direction
    seen: Any = []
    for title, image in images.items():
        if title in lrs[1:]:
            continue
        values = select_plane(image)
        value = values[np.argmin(np.abs(compute_positions(image, side, len(values)) - at))]
        where = compute_positions(image, axis, len(value)) * direction
        if title == lrs[0]:
            style = {"color": "black", "marker": "o", "linestyle": "none", "markersize": 4, "zorder": 4}
        elif title == "HR":
            style = {"color": "black", "linewidth": 2.0}
        else:
            style = {"color": next(colours), "linewidth": 1.2}
        plot.plot(where, value, label=escape_text(title), **style)
        seen.append(value[(where >= window.min()) & (where <= window.max())])
    seen = np.concatenate(seen)
    room = 0.05 * np.ptp(seen)
    plot.set(xlim=(window.min(), window.max()), ylim=(seen.min() - room, seen.max() + room))
    plot.set(xlabel=f"position (mm), {ends}", ylabel="intensity")
    plot.grid(alpha=0.3)
    plot.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)
    edges = np.delete(hr.edges, normal, axis=0)
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": _find_brightness([hr])}
    draw_plane(picture, hr.planes[row], edges, (1.0, 1.0, 1.0), normal, **grey)
    label_ends(picture, normal)
    trace = [window * direction, np.full(span, at)]
    picture.plot(*(trace if axis < side else trace[::-1]), color="tab:red", linewidth=1.5)
    picture.set_title(escape_text(name), fontsize=10)
    save_figure(figure, path)
