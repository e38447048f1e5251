"""The picture of one case: planes with error maps, a zoom where the volumes differ, and a profile through it."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from nibabel.processing import resample_from_to
from nibabel.spatialimages import SpatialImage
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, uniform_filter
from skimage.filters import threshold_otsu

from .files import escape_text
from .planes import PLANES, Panel, View, draw_plane, label_ends

_PANEL = 1.9  # width of a panel in inches
_FLATTEST, _TALLEST = 0.5, 2.0  # height of a panel over its width; planes beyond are drawn on a wider ground
_ZOOM = 4
_NEARLY_MOST = 0.9  # planes that are refined by nearly as much as the most refined one are candidates for the zoom
_ENDS = (("right to left", -1), ("posterior to anterior", 1), ("inferior to superior", 1))


def draw_case(
    volumes: Mapping[str, SpatialImage],
    name: str,
    scores: Mapping[str, Mapping[str, float]],
    zoom: tuple[Sequence[float], float] | None = None,
    planes: Sequence[str] = tuple(PLANES),
) -> Figure:
    """Show a case in three planes, with the errors of cubic and SR if there is HR, as :func:`draw_panels` does.

    The planes go through the middle of the scan's foreground and are cropped to it, or to a cube around a point.

    Args:
        volumes: images of shape (X, Y, Z) by their titles, each on its own grid, normalised to [0, 1]: first the scan,
            which is drawn voxel by voxel, then the others, ``"HR"`` last.
        name: the case's name, for the title.
        scores: ``psnr`` (dB) and ``ssim`` of volumes, shown above them where given.
        zoom: the point, in voxels of the last volume, and the edge of the cube in mm.
        planes: those of ``PLANES`` to draw.
    """
    *others, last = volumes
    affine = np.asarray(volumes[last].affine, dtype=np.float64)
    placed = {}
    for title, image in volumes.items():
        array, own = np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)
        axes = np.abs(np.linalg.solve(affine, own)[:3, :3])
        if (axes > 0.01 * axes.max()).sum() > 3:  # a grid of other directions has no such planes
            array, own = np.asarray(resample_from_to(image, volumes[last], order=1).dataobj), affine
        placed[title] = array, own
    # Planes through samples of the scan show them as they are.
    view = View.from_volume(*placed[next(iter(placed))]) if zoom is None else View.from_point(*placed[last], *zoom)
    images = {title: view.cut_panel(*volume) for title, volume in placed.items()}
    hr = images[last]
    on_grid = [title for title in others[1:] if np.allclose(images[title].edges, hr.edges)]
    compared = on_grid if last == "HR" else []
    errors = {title: compute_error_panel(images[title], images["HR"]) for title in compared}
    return draw_panels(name, images, errors, scores, planes)


def compute_error_panel(panel: Panel, truth: Panel) -> Panel:
    """The absolute difference of two panels of one grid."""
    return Panel(tuple(np.abs(a - b) for a, b in zip(panel.planes, truth.planes, strict=True)), panel.edges)


@dataclass
class Zoom:
    """A square of a plane, and a line through it.

    Args:
        row: number of the plane in ``PLANES``.
        limits: first and last edge in mm along the plane's two axes, shape (2, 2).
        along: the plane's axis, 0 or 1, along which the line runs.
        at: position of the line on the other axis in mm.
        brightest: upper end of its grey window, the same for all images.
    """

    row: int
    limits: np.ndarray
    along: int
    at: float
    brightest: float


def choose_zoom(
    images: Mapping[str, Panel], limits: Sequence[np.ndarray], brightest: float, planes: Sequence[str] = tuple(PLANES)
) -> Zoom:
    """Choose a square, a quarter of a plane wide, where methods differ most from the interpolation.

    The planes are those along which voxels become finer; of thick slices those across the slices. A place counts by the
    mean of the squared differences over the square. Noise is smoothed, and is much the same everywhere. Only tissue
    counts, and no border of it nor of the volume: there scalp, air and extrapolated slices differ most. All images have
    data in the square: zeros up to the border of the plane are none.

    Args:
        images: as for :func:`draw_panels`.
        limits: of each plane as it is drawn, in mm, shape (2, 2).
        brightest: upper end of the grey window; differences beyond it are not seen.
        planes: those of ``PLANES`` to choose from.
    """
    scan, *others = (title for title in images if title != "guide")
    others = [title for title in others if not title.startswith("LR (") and title != "HR"]
    base = others.pop(0) if len(others) > 1 else scan
    last = images.get("HR", images[(others or [base])[-1]])
    finer = _measure_voxels(images[scan]) / _measure_voxels(last)
    across = [tuple(axis for axis in range(3) if axis != normal) for normal in PLANES.values()]
    gains = {row: finer[list(across[row])].prod() for row, plane in enumerate(PLANES) if plane in planes}
    best, zoom = (-1.0, -1.0), None
    for row in (row for row, gain in gains.items() if gain >= _NEARLY_MOST * max(gains.values())):
        axes = list(across[row])
        voxel, inside = _measure_voxels(last)[axes], []
        for axis, (low, high) in zip(axes, limits[row], strict=True):
            centres = _list_centres(last, axis)
            inside.append(centres[(centres > low) & (centres < high)])
        shown, baseline, *compared = (
            gaussian_filter(_sample(image, row, inside).clip(0, brightest), 1)
            for image in (last, images[base], *(images[title] for title in others))
        )
        squares = sum((plane - baseline) ** 2 for plane in compared or [shown])
        edge = max(np.ptp(limits[row][0]) / _ZOOM, 2 * voxel.max())  # at least a voxel is within
        depth = np.zeros(shown.shape)
        if np.ptp(shown) > 0:
            tissue = np.pad(binary_fill_holes(shown > threshold_otsu(shown) / 2), 1)
            depth = distance_transform_edt(tissue, sampling=voxel)[1:-1, 1:-1]
        squares = squares * (depth > min(edge / 2, depth.max() / 2))
        size = np.maximum(np.rint(edge / voxel), 1).astype(int)
        data = np.all([binary_fill_holes(_sample(image, row, inside) != 0) for image in images.values()], axis=0)
        share = uniform_filter(data.astype(float), size.tolist(), mode="nearest").round(3)
        local = uniform_filter(squares, size.tolist(), mode="constant") * (share == share.max())
        if (share.max(), local.max()) > best:
            best = share.max(), local.max()
            middle = np.ravel_multi_index([n // 2 for n in local.shape], local.shape)
            peak = np.unravel_index(np.argmax(local) if local.any() else middle, local.shape)
            ends = []
            for positions, at, (low, high) in zip(inside, peak, limits[row], strict=True):
                start = np.clip(positions[at] - edge / 2, low, max(high - edge, low))
                ends.append((start, start + edge))
            part = [(p > low) & (p < high) for p, (low, high) in zip(inside, ends, strict=True)]
            sums = [squares[np.ix_(*part)].sum(axis=axis) for axis in (0, 1)]  # of lines along this axis
            one, other = finer[axes]
            along = int(other > one) if max(one, other) > 1.1 * min(one, other) else int(sums[1].max() > sums[0].max())
            lines = inside[1 - along][part[1 - along]]
            # A line through samples of the scan, which are drawn as dots.
            apart = np.abs(lines[:, None] - _list_centres(images[scan], axes[1 - along])).min(axis=1)
            near = apart <= max(voxel[1 - along] / 2, apart.min()) + 1e-3
            at = lines[np.argmax(np.where(near, sums[along], -1))]
            within = float(np.percentile(_sample(last, row, [p[q] for p, q in zip(inside, part, strict=True)]), 99.8))
            zoom = Zoom(row, np.array(ends), along, float(at), within or brightest)
    assert zoom is not None
    return zoom


def _measure_voxels(panel: Panel) -> np.ndarray:
    """The voxel size of a panel in mm along R, A, S."""
    return np.ptp(panel.edges, axis=1) / [*panel.planes[0].shape, panel.planes[1].shape[1]]


def _list_centres(panel: Panel, axis: int) -> np.ndarray:
    """Centres of a panel's voxels along R, A or S in mm."""
    step = _measure_voxels(panel)[axis]
    return np.arange(panel.edges[axis][0] + step / 2, panel.edges[axis][1], step)


def _sample(panel: Panel, row: int, positions: Sequence[np.ndarray]) -> np.ndarray:
    """The voxels of a panel's plane at positions in mm along its two axes."""
    axes = [axis for axis in range(3) if axis != list(PLANES.values())[row]]
    index = [
        np.floor((p - panel.edges[axis][0]) / _measure_voxels(panel)[axis]).clip(0, size - 1).astype(int)
        for axis, p, size in zip(axes, positions, panel.planes[row].shape, strict=True)
    ]
    return panel.planes[row][np.ix_(*index)]


def draw_panels(
    name: str,
    images: Mapping[str, Panel],
    errors: Mapping[str, Panel],
    scores: Mapping[str, Mapping[str, float]],
    planes: Sequence[str] = tuple(PLANES),
) -> Figure:
    """Draw panels side by side, in one grey window, and their errors on one colour scale.

    Below the planes is a zoom of 4 into the box that is drawn on one of them (:func:`choose_zoom`), in a grey window of
    its own. Below it are the intensities along the line that is marked at the ends of the zoom. Up to two error panels
    are drawn on the right; more are drawn below their images. Only the region that all panels cover is drawn, in
    millimetres. The patient's right is on the left.

    Args:
        name: the case's name, for the title.
        images: by their titles, normalised to [0, 1]; the first is the scan. ``"HR"``, or without it the last, sets
            the grey window; ``"guide"``, another contrast, has one of its own.
        errors: errors by the titles of their images.
        scores: ``psnr`` (dB) and ``ssim`` of images, shown above them if given.
        planes: those of ``PLANES`` to draw.
    """
    # Bright spots (fat, vessels) must not darken the tissue, nor single voxels hide the errors.
    grey: dict[str, Any] = {
        "cmap": "gray",
        "vmin": 0.0,
        "vmax": _find_brightness([images.get("HR", list(images.values())[-1])]),
    }
    heat = {"cmap": "inferno", "vmin": 0.0, "vmax": (_find_brightness(errors.values()) if errors else 0) or 1.0}
    below = len(errors) > 2
    columns = len(images) + (0 if below else len(errors))
    edges = np.array([panel.edges for panel in images.values()])
    window = np.stack([edges[..., 0].max(axis=0), edges[..., 1].min(axis=0)], axis=-1)
    limits = [_widen(np.delete(window, normal, axis=0)) for normal in PLANES.values()]
    zoom = choose_zoom(images, limits, grey["vmax"], planes)
    shown = [(plane, row, limits[row]) for row, plane in enumerate(PLANES) if plane in planes]
    shown.append((f"{list(PLANES)[zoom.row]}, {_ZOOM}x", zoom.row, zoom.limits))
    ratios: Any = np.repeat([np.ptp(ends[1]) / np.ptp(ends[0]) for *_, ends in shown], 2 if below else 1)
    titles = {title: _wrap(title, 22) for title in images}
    error_titles = {} if below else {title: _wrap(f"|{title} - HR|", 22) for title in errors}
    lines = max(map(len, [*titles.values(), *error_titles.values()])) + 1
    left, right = 0.45, 0.8 if errors else 0.1
    width = columns * _PANEL + left + right
    heading = _wrap(name, int(10 * width))
    labels = {title: "\n".join(_wrap(title, 30)) for title in images if title != "guide"}
    top = 0.2 + 0.2 * len(heading) + 0.17 * lines
    legend = _count_legend_columns(labels.values(), width - left - right)
    curves = 2.4 + 0.16 * max(label.count("\n") + 1 for label in labels.values()) * -(-len(labels) // legend)
    height = sum(ratios) * _PANEL + top + curves
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
            "bottom": curves / height,
            "wspace": 0.03,
            "hspace": 0.03,
        },
    )
    figure.suptitle("\n".join(heading), y=1 - 0.08 / height, va="top", fontsize=12)
    for panel in axes.ravel():
        panel.set_axis_off()

    def draw_panel(axes: Axes, panel: Panel, row: int, ends: np.ndarray, style: Mapping) -> AxesImage:
        normal = list(PLANES.values())[row]
        image = draw_plane(
            axes, panel.planes[row], np.delete(panel.edges, normal, axis=0), (1.0, 1.0, 1.0), normal, **style
        )
        axes.set(xlim=ends[0][::-1], ylim=ends[1], facecolor="black", xticks=[], yticks=[])
        axes.set_axis_on()  # for the black ground
        return image

    for number, (plane, row, ends) in enumerate(shown):
        image_axes, error_axes = axes[number * (2 if below else 1)], axes[number, len(images) :]
        if below:
            error_axes = axes[2 * number + 1, [list(images).index(title) for title in errors]]
        for panel, (title, image) in zip(image_axes, images.items(), strict=False):
            brightest = zoom.brightest if number == len(shown) - 1 else grey["vmax"]
            style = {**grey, "vmax": _find_brightness([image]) if title == "guide" else brightest}
            draw_panel(panel, image, row, ends, style)
            if number == 0:
                score = scores.get(title)
                caption = f"{score['psnr']:.2f} dB, SSIM {score['ssim']:.4f}" if score else ""
                panel.set_title("\n".join([*titles[title], caption]), fontsize=10)
            if number < len(shown) - 1 and row == zoom.row:
                (left_end, low), (edge, _) = zoom.limits[:, 0], np.ptp(zoom.limits, axis=1)
                panel.add_patch(Rectangle((left_end, low), edge, edge, fill=False, edgecolor="yellow", linewidth=0.8))
            if number == len(shown) - 1:
                mark = panel.axvline if zoom.along else panel.axhline
                for start in (0.0, 0.93):
                    mark(zoom.at, start, start + 0.07, color="yellow", linewidth=1.2)
        for panel, (title, image) in zip(error_axes, errors.items(), strict=True):
            error_image = draw_panel(panel, image, row, ends, heat)
            if number == 0 and not below:
                panel.set_title("\n".join([*error_titles[title], ""]), fontsize=10)
        if number < len(shown) - 1:
            label_ends(image_axes[0], PLANES[plane])
        label = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9}
        image_axes[0].text(-0.05, 0.5, plane, transform=image_axes[0].transAxes, **label)
        if below:
            error_axes[0].text(-0.05, 0.5, "error", transform=error_axes[0].transAxes, **label)
    if errors:
        bar = (1 - (right - 0.1) / width, curves / height, 0.14 / width, 1 - (top + curves) / height)
        figure.colorbar(error_image, cax=figure.add_axes(bar), extend="max")
    plot = figure.add_axes(((left + 0.25) / width, 0.5 / height, 1 - (left + 0.25 + right) / width, 1.6 / height))
    _draw_profile(plot, images, labels, zoom)
    plot.legend(ncols=legend, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)
    return figure


def _wrap(text: str, width: int) -> list[str]:
    """A text in lines of at most so many characters, for a figure."""
    return [escape_text(line) for line in textwrap.wrap(text, width)] or [""]


def _count_legend_columns(labels: Iterable[str], width: float) -> int:
    """How many columns a legend has room for in so many inches."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return max(1, min(8, int(width / (0.6 + 0.075 * longest))))


def _widen(ends: np.ndarray) -> np.ndarray:
    """Widen the ends of a plane that is too flat or too tall for a panel, about its middle."""
    width, height = np.ptp(ends, axis=1)
    room = np.maximum([height / _TALLEST - width, width * _FLATTEST - height], 0) / 2
    return ends + np.outer(room, [-1, 1])


def _find_brightness(panels: Iterable[Panel]) -> float:
    """The 99.8th percentile of all that is shown."""
    return float(np.percentile(np.concatenate([plane.ravel() for panel in panels for plane in panel.planes]), 99.8))


def _draw_profile(plot: Axes, images: Mapping[str, Panel], labels: Mapping[str, str], zoom: Zoom) -> None:
    """Plot the intensities of all images along the line of a zoom: the scan as dots at its samples, HR black."""
    axes = [axis for axis in range(3) if axis != list(PLANES.values())[zoom.row]]
    axis, (low, high) = axes[zoom.along], zoom.limits[zoom.along]
    ends, direction = _ENDS[axis]
    colours = itertools.cycle(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    scan = next(iter(images))
    seen: Any = []
    for title, label in labels.items():
        if title != scan and title.startswith("LR ("):
            continue
        where = _list_centres(images[title], axis)
        positions = [np.array([zoom.at]), np.array([zoom.at])]
        positions[zoom.along] = where
        values = _sample(images[title], zoom.row, positions).ravel()
        style: dict[str, Any]
        if title == scan:
            style = {"color": "black", "marker": "o", "linestyle": "none", "markersize": 4, "zorder": 4}
        elif title == "HR":
            style = {"color": "black", "linewidth": 2.0}
        else:
            style = {"color": next(colours), "linewidth": 1.2}
        plot.plot(where * direction, values, label=label, **style)
        seen.append(values[(where > low) & (where < high)])
    seen = np.concatenate(seen)
    room = 0.05 * np.ptp(seen) or 0.05
    plot.set(xlim=sorted((low * direction, high * direction)), ylim=(seen.min() - room, seen.max() + room))
    plot.set_xlabel(f"mm, {ends}", fontsize=9)
    plot.set_ylabel("intensity", fontsize=9)
    plot.tick_params(labelsize=8)
    plot.grid(alpha=0.3)
