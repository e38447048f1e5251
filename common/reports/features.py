"""Pictures of what networks make of images: features (Liu et al. 2023) and translations (Wang et al. 2023)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from nibabel.affines import voxel_sizes

from .files import save_figure
from .planes import draw_plane, find_foreground, label_ends, to_ras

_CHANNELS = 3  # feature maps that are shown


def draw_feature_maps(
    path: str | os.PathLike, source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]
) -> None:
    """Show images and three feature maps of the source group above those of the target group.

    The maps are those with the largest variance over both groups, which share a colour scale.

    Args:
        path: the PNG to write.
        source: of one slice perpendicular to the third stored axis: ``"image"``, the HR image, shape (X, Y); ``"lr"``,
            the LR image made from it, shape (x, y); ``"features"``, of its encoder, shape (C, x, y); ``"affine"``, of
            the HR volume, voxel to RAS+ millimetres.
        target: likewise: ``"image"``, the SR image; ``"lr"``, the LR image; ``"features"``; ``"affine"``.

    Source:
        Liu et al. 2023, fig. 4.
    """
    groups = (source, target)
    variance = sum(np.var(group["features"], axis=(1, 2)) for group in groups)
    chosen = np.argsort(variance)[::-1][:_CHANNELS]
    titles = (("$Y_s$ (HR)", r"$X_{s\sim t}$ (learned LR)", "f_{{s{}}}"), ("$Y_t$ (SR)", "$X_t$ (LR)", "f_{{t{}}}"))
    bright = np.concatenate([np.ravel(group["image"]) for group in groups])
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": float(np.percentile(bright, 99.8))}
    panels = 2 + len(chosen)
    figure = Figure(figsize=(1.9 * panels + 0.2, 5.6), dpi=150, layout="constrained")
    axes = figure.subplots(2, panels)
    for row, (group, (image_title, lr_title, feature_title)) in enumerate(zip(groups, titles, strict=True)):
        slab, grid = to_ras(np.asarray(group["image"])[..., None], group["affine"])
        normal, spacing = slab.shape.index(1), voxel_sizes(grid)
        edges = np.delete(np.array([(0, n) for n in slab.shape]), normal, axis=0)
        extents = np.array([(s.start, s.stop) for s in find_foreground(slab)[1]]) * spacing[:, None]
        (left, right), (low, high) = np.delete(extents, normal, axis=0)
        maps = [(image_title, group["image"], grey), (lr_title, group["lr"], grey)]
        for number, channel in enumerate(chosen, start=1):
            both = np.concatenate([group["features"][channel].ravel() for group in groups])
            limits = np.percentile(both, [0.2, 99.8])
            style = {"cmap": "viridis", "vmin": float(limits[0]), "vmax": float(limits[1])}
            title = f"${feature_title.format(number)}$ (channel {channel})"
            maps.append((title, group["features"][channel], style))
        for column, (title, plane, style) in enumerate(maps):
            plane = to_ras(np.asarray(plane)[..., None], group["affine"])[0].squeeze(normal)
            image = draw_plane(axes[row, column], plane, edges, spacing, normal, **style)
            axes[row, column].set(xlim=(right, left), ylim=(low, high))
            axes[row, column].set_title(title, fontsize=9)
            if row and column > 1:
                figure.colorbar(image, ax=axes[:, column], location="bottom", shrink=0.9, pad=0.02)
    save_figure(figure, path)


def draw_feature_tsne(path: str | os.PathLike, panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Show by t-SNE how alike source and target features are, in a panel for each training.

    t-SNE may separate or join groups by itself. Each title therefore says how often a vector's nearest neighbour, in
    the features' own space, is of its own group (mean of both groups).

    Args:
        path: the PNG to write.
        panels: by title: pooled features of the source, shape (N, C), and of the target, shape (M, C).

    Source:
        Liu et al. 2023, fig. 5; van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 9, 2008.
    """
    try:
        from sklearn.manifold import TSNE
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("draw_feature_tsne needs scikit-learn: pip install scikit-learn.") from error
    figure = Figure(figsize=(4 * len(panels), 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, (source, target)) in zip(axes, panels.items(), strict=True):
        features = np.concatenate([source, target]).astype(np.float64)
        if len(features) < 5:
            raise ValueError(f"t-SNE of {len(features)} feature vectors shows nothing: give at least 5.")
        group = np.arange(len(features)) >= len(source)
        neighbour = NearestNeighbors(n_neighbors=1).fit(features).kneighbors(return_distance=False)[:, 0]
        alike = np.mean([np.mean(group[neighbour[group == g]] == g) for g in (False, True)])
        perplexity = min(30, (len(features) - 1) / 3)
        # Its short parallel loops wait for each other: on a busy machine one thread is ten times as fast as two.
        with threadpool_limits(1):
            points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
        for g, label, marker, colour in ((False, "source", "o", "tab:blue"), (True, "target", "^", "tab:orange")):
            panel.scatter(*points[group == g].T, s=14, marker=marker, color=colour, alpha=0.6, label=label)
        alone = f"nearest neighbour in the own group: {alike:.0%}\n(of two equal groups: 50%)"
        panel.set_title(f"{title}\n{alone}", fontsize=10)
        panel.set(xticks=[], yticks=[])
        panel.legend(fontsize=8)
    save_figure(figure, path)


def draw_translation(path: str | os.PathLike, rows: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]) -> None:
    """Show for each modality an image, its translation, and the translation back (Wang et al. 2023, fig. 4).

    Args:
        path: the PNG to write.
        rows: by title, images by title and their affine. An image is one plane of a volume across its first stored
            axis, shape (1, Y, Z), in [-1, 1]; the affine is the volume's, voxel to RAS+ millimetres.
    """
    columns = max(len(images) for images, _ in rows.values())
    figure = Figure(figsize=(2.6 * columns, 2.6 * len(rows) + 0.4), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for panels, (name, (images, affine)) in zip(axes, rows.items(), strict=True):
        for panel in panels:
            panel.set_axis_off()
        for panel, (title, image) in zip(panels, images.items(), strict=False):
            volume, grid = to_ras(image, affine)
            normal = volume.shape.index(1)
            plane = volume.squeeze(normal)
            edges = np.array([(-0.5, n - 0.5) for n in plane.shape])
            draw_plane(panel, plane, edges, voxel_sizes(grid), normal, cmap="gray", vmin=-1, vmax=1)
            panel.set_title(title, fontsize=10)
        label_ends(panels[0], normal)
        panels[0].text(-0.04, 0.5, name, transform=panels[0].transAxes, rotation=90, ha="right", va="center")
    save_figure(figure, path)
