"""The picture and the distance of MSCN distributions."""

import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from common.metrics import compute_mscn
from common.metrics.mscn import mask_tissue
from common.reports import compute_mscn_distance, draw_mscn
from common.reports import mscn as report

from ..refused import refused


def _tissue(seed, shape=(60, 50)):
    return np.clip(0.5 + 0.1 * gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.7), 0, 1)


def _samples(airless):
    values = [compute_mscn(image) for image in airless]
    products = [v[1:, 1:] * v[:-1, :-1] for v in values]
    return [np.concatenate([v.ravel() for v in kind]) for kind in (values, products)]


def test_distances_are_those_of_coefficients_and_products_without_air():
    first, second = [_tissue(0), _tissue(1, (40, 30))], [gaussian_filter(_tissue(2), 1)]
    expected = [wasserstein_distance(a, b) for a, b in zip(_samples(first), _samples(second), strict=True)]
    assert compute_mscn_distance(first, second) == pytest.approx(expected) == compute_mscn_distance(second, first)
    assert min(expected) > 0.1 and compute_mscn_distance(first, first) == (0, 0)
    noise = 0.01 * np.random.default_rng(3).random((200, 50))  # as air far from tissue it is nothing
    framed = [np.concatenate([second[0], noise])]
    assert max(compute_mscn_distance(framed, second)) < 0.02
    assert compute_mscn_distance([*framed, noise], framed) == (0, 0)
    image = np.pad(_tissue(4, (12, 10)), ((5, 4), (6, 3)))  # products are of neighbours above left, both of tissue
    values, mask = compute_mscn(image), mask_tissue(image)
    pairs = [(m, n) for m, n in np.ndindex(image.shape) if m and n and mask[m, n] and mask[m - 1, n - 1]]
    np.testing.assert_allclose(
        report._compute_samples([image])[1], [values[m, n] * values[m - 1, n - 1] for m, n in pairs]
    )


def test_figure_draws_densities_of_coefficients_and_products_by_label(tmp_path, figures):
    real, made = [_tissue(0), _tissue(1)], [gaussian_filter(_tissue(2), 1)]
    draw_mscn(tmp_path / "mscn.png", {"real": real, "made": [np.pad(made[0], ((0, 100), (0, 0)))]})
    assert [p.name for p in tmp_path.iterdir()] == ["mscn.png"]
    for panel, *samples in zip(figures[0].axes, _samples(real), _samples(made), strict=True):
        for line, sample in zip(panel.lines, samples, strict=True):
            x, density = line.get_xydata().T
            width = x[1] - x[0]
            assert 0.96 < (density * width).sum() <= 1 + 1e-9
            expected = np.mean(np.abs(sample) < width / 2) / width  # around 0; the frame is not in the curve
            np.testing.assert_allclose(density[np.abs(x) < 1e-9], expected, rtol=0.1)
        first, second = (text.get_text() for text in panel.get_legend().get_texts())
        shown = re.fullmatch(r"made \((\S+) .*from real\)", second)[1]
        assert first == "real" and float(shown) == pytest.approx(wasserstein_distance(*samples), abs=0.01)


def test_refused(tmp_path):
    path, some = tmp_path / "mscn.png", [_tissue(0)]
    refused(lambda: draw_mscn(path, {}), ValueError, "at least one group")
    refused(lambda: draw_mscn(path, {"a": some, "b": []}), ValueError, "'b'", "0 images")
    air = [np.zeros((20, 20))]
    refused(lambda: draw_mscn(path, {"a": some, "b": air}), ValueError, "'b'", "1 images")
    assert not list(tmp_path.iterdir())
