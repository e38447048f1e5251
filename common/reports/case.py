"""Pictures of one case: planes with error maps, and a line profile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .files import save_figure
from .planes import PLANES, Grid, content, draw_plane, label_ends

__all__ = ["case_figure", "line_profile"]

_PANEL = 1.9  # width of a panel in inches


def case_figure(
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
    guide: np.ndarray | None = None,
    zoom: tuple[Sequence[float], float] | None = None,
) -> None:
    """Show a case in three planes: LR, cubic, SR and HR, and the errors of cubic and SR on one colour scale.

    The planes go through the middle of the foreground and are cropped to it, or through a point and cropped to a cube
    around it. The patient's right is on the left.

    Args:
        path: the PNG to write.
        lr: LR volume, shape (x, y, z), normalised to [0, 1] like all others; drawn voxel by voxel at its own place.
        cubic: its cubic interpolation, shape (X, Y, Z).
        sr: its super-resolution, shape (X, Y, Z).
        hr: the ground truth, shape (X, Y, Z); without it the picture has neither HR nor errors.
        name: the case's name, for the title.
        scores: ``psnr`` (dB) and ``ssim`` of ``"cubic"`` and ``"sr"``, shown above them where given.
        affine: affine of the HR grid, voxel to RAS+ millimetres.
        factors: HR voxels per LR voxel along the stored axes.
        offset: centre of LR voxel 0 in HR voxels along the stored axes.
        guide: another contrast that the method had as second input, shape (X, Y, Z); shown beside LR, in grey levels
            of its own.
        zoom: the point, in voxels of the stored HR grid, and the edge of the cube in mm.
    """
    grid = Grid(affine)
    shape = sr.shape
    lr_edges = grid.lr_edges(sr.shape, lr.shape, factors, offset)
    lr, cubic, sr = (grid.canonical(v) for v in (lr, cubic, sr))
    images, errors = {"LR": lr}, {}
    if guide is not None:
        images["guide"] = grid.canonical(guide)
    images |= {"cubic": cubic, "SR": sr}
    if hr is not None:
        hr = images["HR"] = grid.canonical(hr)
        errors = {"|cubic - HR|": np.abs(cubic - hr), "|SR - HR|": np.abs(sr - hr)}
    centre, box = content(sr if hr is None else hr) if zoom is None else grid.cube(shape, *zoom)
    planes = []
    for normal in PLANES.values():
        at = tuple(centre[a] if a == normal else box[a] for a in range(3))
        lr_at = np.floor((centre[normal] + 0.5 - lr_edges[normal, 0]) / np.ptp(lr_edges[normal]) * lr.shape[normal])
        planes.append((normal, at, int(np.clip(lr_at, 0, lr.shape[normal] - 1))))
    # Bright spots (fat, vessels) must not darken the tissue, nor single voxels hide the errors.
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": float(np.percentile((sr if hr is None else hr)[box], 99.8))}
    styles = dict.fromkeys(images, grey)
    if guide is not None:
        styles["guide"] = {**grey, "vmax": float(np.percentile(images["guide"][box], 99.8))}
    shown = [error[at].ravel() for error in errors.values() for _, at, _ in planes]
    heat = {"cmap": "inferno", "vmin": 0.0, "vmax": float(np.percentile(np.concatenate(shown), 99.8)) if shown else 1.0}
    styles |= dict.fromkeys(errors, heat)

    size = np.array([(s.stop - s.start) * mm for s, mm in zip(box, grid.spacing, strict=True)])
    ratios = [max(size[2 if n < 2 else 1] / size[1 if n == 0 else 0], 0.2) for n in PLANES.values()]
    columns = len(images) + len(errors)
    left, right, top, bottom = 0.3, 0.8 if errors else 0.1, 0.8, 0.1
    width, height = columns * _PANEL + left + right, sum(ratios) * _PANEL + top + bottom
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.subplots(
        3,
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
    figure.suptitle(name, y=1 - 0.08 / height, va="top", fontsize=12)
    for row, (plane, (normal, at, lr_at)) in enumerate(zip(PLANES, planes, strict=True)):
        edges = np.array([(s.start - 0.5, s.stop - 0.5) for s in at if isinstance(s, slice)])
        for column, (title, volume) in enumerate([*images.items(), *errors.items()]):
            panel = axes[row, column]
            style = styles[title]
            if title == "LR":
                around = np.delete(lr_edges, normal, axis=0)
                draw_plane(panel, np.take(lr, lr_at, axis=normal), around, grid.spacing, normal, **style)
                label_ends(panel, normal)
                along, up = (edges * np.delete(grid.spacing, normal)[:, None]).tolist()
                panel.set_xlim(along[::-1])
                panel.set_ylim(up)
                panel.text(-0.05, 0.5, plane, transform=panel.transAxes, rotation=90, ha="right", va="center")
            else:
                image = draw_plane(panel, volume[at], edges, grid.spacing, normal, **style)
            if row == 0:
                score = scores.get(title.lower(), {}) if title in images else {}
                caption = f"\n{score['psnr']:.2f} dB, {score['ssim']:.4f}" if score else "\n"
                panel.set_title(title + caption, fontsize=10)
    if errors:
        bar = figure.add_axes((1 - (right - 0.1) / width, bottom / height, 0.14 / width, 1 - (top + bottom) / height))
        figure.colorbar(image, cax=bar, extend="max")
    save_figure(figure, path)


def line_profile(
    path: str | os.PathLike,
    lr: np.ndarray,
    cubic: np.ndarray,
    sr: np.ndarray,
    hr: np.ndarray,
    name: str,
    affine: np.ndarray,
    factors: Sequence[int],
    offset: Sequence[float],
) -> None:
    """Plot intensities along one line through the tissue with the steepest edges, with a picture of where it lies.

    The line runs along the (first) most super-resolved axis and, where LR voxels are centred on HR ones, through the
    centres of LR voxels.

    Args:
        path: the PNG to write.
        lr: LR volume, shape (x, y, z), normalised to [0, 1] like all others; drawn as dots at its sample positions.
        cubic: its cubic interpolation, shape (X, Y, Z).
        sr: its super-resolution, shape (X, Y, Z).
        hr: the ground truth, shape (X, Y, Z).
        name: the case's name, for the title.
        affine: affine of the HR grid, voxel to RAS+ millimetres.
        factors: HR voxels per LR voxel along the stored axes.
        offset: centre of LR voxel 0 in HR voxels along the stored axes.
    """
    axis = int(np.argmax(factors))
    across = [a for a in range(3) if a != axis]
    samples = [np.arange(n) * f + o for n, f, o in zip(lr.shape, factors, offset, strict=True)]
    # Lines of HR voxels nearest to lines of LR samples, so that dots and curves tell of the same place.
    nearest = [np.clip(np.floor(samples[a] + 0.5).astype(int), 0, hr.shape[a] - 1) for a in across]
    lines = np.moveaxis(hr, axis, -1)[np.ix_(*nearest)]
    span = min(hr.shape[axis], 64)
    steps = np.abs(np.diff(lines, axis=-1)).cumsum(axis=-1)
    steepness = steps[..., span - 2 :] - np.pad(steps, ((0, 0), (0, 0), (1, 0)))[..., : steps.shape[-1] - span + 2]
    first, second, start = np.unravel_index(np.argmax(steepness), steepness.shape)
    line = [0, 0, 0]
    line[across[0]], line[across[1]] = int(nearest[0][first]), int(nearest[1][second])

    def along(volume: np.ndarray, at: Sequence[int]) -> np.ndarray:
        return np.moveaxis(volume, axis, -1)[at[across[0]], at[across[1]]]

    grid = Grid(affine)
    target = int(grid.orientation[axis, 0])
    spacing = grid.spacing[target]
    figure = Figure(figsize=(11, 3.8), dpi=150, layout="constrained")
    picture, plot = figure.subplots(1, 2, width_ratios=[1, 2.6])
    lr_at = [0, 0, 0]
    lr_at[across[0]], lr_at[across[1]] = int(first), int(second)
    plot.plot(samples[axis] * spacing, along(lr, lr_at), "o", color="black", markersize=5, label="LR samples", zorder=4)
    positions = np.arange(hr.shape[axis]) * spacing
    curves = (
        ("HR", hr, "black", "-", 1.2),
        ("cubic", cubic, "tab:orange", "--", 1.6),
        ("SR", sr, "tab:blue", "-", 1.6),
    )
    for label, volume, colour, style, thickness in curves:
        plot.plot(positions, along(volume, line), style, color=colour, linewidth=thickness, label=label)
    window = slice(int(start), int(start) + span)
    plot.set_xlim(positions[window][0] - spacing / 2, positions[window][-1] + spacing / 2)
    seen = np.concatenate([along(volume, line)[window] for volume in (hr, cubic, sr)])
    plot.set_ylim(seen.min() - 0.05 * np.ptp(seen), seen.max() + 0.05 * np.ptp(seen))
    ends = ("left to right", "posterior to anterior", "inferior to superior")[target].split(" to ")
    if grid.orientation[axis, 1] < 0:
        ends.reverse()
    plot.set_xlabel(f"position (mm), {ends[0]} to {ends[1]}")
    plot.set_ylabel("intensity")
    plot.grid(alpha=0.3)
    plot.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)

    # The picture shows the plane that holds the line and cuts the other axes where most anatomy is seen.
    normal = 2 if target != 2 else 1
    trace = np.zeros(hr.shape, bool)
    where = list(line)
    where[axis] = window
    trace[tuple(where)] = True
    trace, seen = grid.canonical(trace), grid.canonical(hr)
    points = np.argwhere(trace)
    volume_edges = np.array([(-0.5, n - 0.5) for n in seen.shape])
    draw_plane(
        picture,
        np.take(seen, points[0, normal], axis=normal),
        np.delete(volume_edges, normal, axis=0),
        grid.spacing,
        normal,
        cmap="gray",
        vmin=0.0,
        vmax=float(np.percentile(hr, 99.8)),
    )
    label_ends(picture, normal)
    shown = np.delete(points * grid.spacing, normal, axis=1)
    picture.plot(shown[:, 0], shown[:, 1], color="tab:red", linewidth=1.5)
    picture.set_title(name, fontsize=10)
    save_figure(figure, path)
