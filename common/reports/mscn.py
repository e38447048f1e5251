"""How alike groups of images are in their local statistics: distributions of MSCN coefficients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import wasserstein_distance

from ..metrics.mscn import compute_mscn, mask_tissue
from .files import save_figure


def _compute_samples(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of images and their products with the upper left neighbour, without air."""
    coefficients, products = [], []
    for image in images:
        values, mask = compute_mscn(image), mask_tissue(image)
        coefficients.append(values[mask])
        # Both of a pair must be tissue.
        products.append((values[1:, 1:] * values[:-1, :-1])[mask[1:, 1:] & mask[:-1, :-1]])
    if not any(map(len, products)):
        raise ValueError(
            f"found no tissue in {len(images)} images, expected pixels brighter than 5 % of full scale; give images "
            "normalised to [0, 1] that are not all air."
        )
    return np.concatenate(coefficients), np.concatenate(products)


def compute_mscn_distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[float, float]:
    """Measure the distance of two groups' distributions of MSCN coefficients, and of their products, without air.

    Args:
        first, second: floats of shape (H, W), in [0, 1]; images may differ in shape.

    Returns:
        Wasserstein distances of the coefficients and of the products of neighbouring ones: 0 for equal distributions.

    Source:
        As a number, the comparison in Huang et al. 2021, fig. 5.
    """
    pairs = zip(_compute_samples(first), _compute_samples(second), strict=True)
    coefficients, products = (float(wasserstein_distance(a, b)) for a, b in pairs)
    return coefficients, products


def draw_mscn(path: str | os.PathLike, images: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Draw the distributions of MSCN coefficients and of products of neighbouring ones, a curve for each group.

    Air is left out (:func:`common.metrics.mscn.mask_tissue`). The legend has the distances to the first group.

    Args:
        path: the PNG to write.
        images: groups by their labels: floats of shape (H, W), in [0, 1]; the first is the reference.

    Source:
        Huang et al. 2021, fig. 5 and eq. 4.
    """
    if not images:
        raise ValueError("draw_mscn needs at least one group of images.")
    groups = {}
    for label, group in images.items():
        try:
            groups[label] = _compute_samples(group)
        except ValueError as error:
            raise ValueError(f"'{label}': {error}") from None
    figure = Figure(figsize=(11, 4.8), dpi=150, layout="constrained")
    panels = (
        (r"MSCN coefficients $\hat{I}(m, n)$", r"$\hat{I}(m, n)$", 0.999),
        (r"pairwise products $D(m, n) = \hat{I}(m, n)\,\hat{I}(m-1, n-1)$", r"$D(m, n)$", 0.97),
    )
    for number, (panel, (title, name, panel_samples)) in enumerate(zip(figure.subplots(1, 2), panels, strict=True)):
        samples = [group[number] for group in groups.values()]
        # The tails, above all of the products, are long and nearly empty. An odd number of bins has one around 0.
        limit = max(np.quantile(np.abs(values), panel_samples) for values in samples)
        edges = np.linspace(-limit, limit, 82)
        for index, (label, values) in enumerate(zip(groups, samples, strict=True)):
            density = np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0]))
            distance = f" ({wasserstein_distance(samples[0], values):.3f} from {next(iter(groups))})" if index else ""
            # Line styles, as in the paper, distinguish the curves where colours do not.
            style = ("-", "--", ":", "-.")[index % 4]
            panel.plot((edges[1:] + edges[:-1]) / 2, density, style, label=f"{label}{distance}", linewidth=1.5)
        panel.set_title(title, fontsize=10)
        panel.set(xlabel=name, ylabel="density", xlim=(-limit, limit), ylim=(0, None))
        panel.grid(alpha=0.3)
        # Below, where it hides no curve.
        panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1 + (len(groups) > 3))
    save_figure(figure, path)
