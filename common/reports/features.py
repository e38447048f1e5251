"""Pictures of how adaptation changes features (Liu et al. 2023, fig. 4 and 5)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from .files import save_figure
from .planes import Grid, content, draw_plane


def feature_maps(
    path: str | os.PathLike,
    source: Mapping[str, np.ndarray],
    target: Mapping[str, np.ndarray],
) -> None:
    """Show images and feature maps of the source group above those of the target group.

    Three channels are shown, those with the largest variance over both groups. Each has one colour scale for both, so
    that a difference in level is visible.

    Args:
        path: the PNG to write.
        source: of one slice perpendicular to the third stored axis: ``"image"``, the HR image, shape (X, Y); ``"lr"``,
            the LR image that was generated from it, shape (x, y); ``"features"``, of its encoder, shape (C, x, y);
            ``"affine"``, of the HR volume, voxel to RAS+ millimetres.
        target: likewise: ``"image"``, the SR image; ``"lr"``, the LR image; ``"features"``; ``"affine"``.

    Source:
        Liu et al. 2023, fig. 4.
    """
    groups = (source, target)
    variance = sum(np.var(group["features"], axis=(1, 2)) for group in groups)
    chosen = np.argsort(variance)[::-1][:3]
    titles = (
        ("$Y_s$ (HR)", r"$X_{s\sim t}$ (learned LR)", "f_{{s{}}}"),
        ("$Y_t$ (SR)", "$X_t$ (LR)", "f_{{t{}}}"),
    )
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": float(np.percentile(np.concatenate([*_flat(groups, "image")]), 99.8))}
    panels = 2 + len(chosen)
    figure = Figure(figsize=(1.9 * panels + 0.2, 5.6), dpi=150, layout="constrained")
    axes = figure.subplots(2, panels)
    for row, (group, (image_title, lr_title, feature_title)) in enumerate(zip(groups, titles, strict=True)):
        grid = Grid(group["affine"])
        normal = int(grid.orientation[2, 0])
        slab = grid.canonical(np.asarray(group["image"])[..., None])
        edges = np.delete(np.array([(0, n) for n in slab.shape]), normal, axis=0)
        shown = np.array([(s.start, s.stop) for s in content(slab)[1]]) * grid.spacing[:, None]
        (left, right), (low, high) = np.delete(shown, normal, axis=0)
        maps = [(image_title, group["image"], grey), (lr_title, group["lr"], grey)]
        for number, channel in enumerate(chosen, start=1):
            both = np.concatenate([*_flat(groups, "features", channel)])
            limits = np.percentile(both, [0.2, 99.8])
            style = {"cmap": "viridis", "vmin": float(limits[0]), "vmax": float(limits[1])}
            title = f"${feature_title.format(number)}$ (channel {channel})"
            maps.append((title, group["features"][channel], style))
        for column, (title, plane, style) in enumerate(maps):
            plane = np.squeeze(grid.canonical(np.asarray(plane)[..., None]), axis=normal)
            image = draw_plane(axes[row, column], plane, edges, grid.spacing, normal, **style)
            axes[row, column].set(xlim=(right, left), ylim=(low, high))
            axes[row, column].set_title(title, fontsize=9)
            if row and column > 1:
                figure.colorbar(image, ax=axes[:, column], location="bottom", shrink=0.9, pad=0.02)
    save_figure(figure, path)


def _flat(groups, key: str, *index: int):
    """Flatten one picture of each group."""
    return (np.ravel(np.asarray(group[key])[index]) for group in groups)


def feature_tsne(path: str | os.PathLike, panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Show by t-SNE how alike source and target features are, in a panel for each training.

    t-SNE may separate or join groups by itself. Each title therefore has a number that does not depend on it: how often
    a vector's nearest neighbour, in the features' own space, is of its own group (mean of both groups).

    Args:
        path: the PNG to write.
        panels: by title: pooled features of the source, shape (N, C), and of the target, shape (M, C).

    Raises:
        ImportError: When scikit-learn is not installed.
        ValueError: When there are fewer than 5 vectors in a panel.

    Source:
        Liu et al. 2023, fig. 5; van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 9, 2008.
    """
    try:
        from sklearn.manifold import TSNE
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("feature_tsne needs scikit-learn: pip install scikit-learn.") from error
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
        panel.set_xticks([])
        panel.set_yticks([])
        panel.legend(fontsize=8)
    save_figure(figure, path)
