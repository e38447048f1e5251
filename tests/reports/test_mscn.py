"""The picture and the distance of MSCN distributions."""

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from common.metrics import mscn
from common.metrics.brisque import tissue
from common.reports import mscn as report
from common.reports import mscn_distance, mscn_figure


def _tissue(seed, shape=(60, 50)):
    return np.clip(0.5 + 0.1 * gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.7), 0, 1)


def test_distances_are_those_of_coefficients_and_products_without_air():
    first, second = [_tissue(0), _tissue(1, (40, 30))], [gaussian_filter(_tissue(2), 1)]

    def samples(images):
        values = [mscn(image) for image in images]
        products = [v[1:, 1:] * v[:-1, :-1] for v in values]
        return [np.concatenate([v.ravel() for v in kind]) for kind in (values, products)]

    expected = [wasserstein_distance(a, b) for a, b in zip(samples(first), samples(second), strict=True)]
    assert mscn_distance(first, second) == pytest.approx(expected) == mscn_distance(second, first)
    assert min(expected) > 0.1 and mscn_distance(first, first) == (0, 0)
    # Air far from tissue is nothing, however much of it there is and whatever its noise.
    noise = 0.01 * np.random.default_rng(3).random((200, 50))
    framed = [np.concatenate([second[0], noise])]
    assert max(mscn_distance(framed, second)) < 0.02
    assert mscn_distance([*framed, noise], framed) == (0, 0)


def test_products_are_those_of_neighbours_above_left_that_are_both_tissue():
    image = np.pad(_tissue(4, (12, 10)), ((5, 4), (6, 3)))
    values, mask = mscn(image), tissue(image)
    pairs = [(m, n) for m, n in np.ndindex(image.shape) if m and n and mask[m, n] and mask[m - 1, n - 1]]
    np.testing.assert_allclose(report._samples([image])[1], [values[m, n] * values[m - 1, n - 1] for m, n in pairs])


def test_figure_draws_densities_of_coefficients_and_products_by_label(tmp_path, monkeypatch):
    figures, save = [], report.save_figure
    monkeypatch.setattr(report, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    real, made = [_tissue(0), _tissue(1)], [gaussian_filter(_tissue(2), 1)]
    framed = np.pad(made[0], ((0, 100), (0, 0)))
    mscn_figure(tmp_path / "mscn.png", {"real": real, "made": [framed]})
    assert imread(tmp_path / "mscn.png").std() > 0.05 and [p.name for p in tmp_path.iterdir()] == ["mscn.png"]
    for number, panel in enumerate(figures[0].axes):
        samples = []
        for group in (real, made):
            values = [mscn(image) for image in group]
            values = values if number == 0 else [v[1:, 1:] * v[:-1, :-1] for v in values]
            samples.append(np.concatenate([v.ravel() for v in values]))
        for line, sample in zip(panel.lines, samples, strict=True):
            x, density = line.get_xydata().T
            width = x[1] - x[0]
            assert 0.96 < (density * width).sum() <= 1 + 1e-9
            centre = np.abs(x) < 1e-9  # the bin around 0
            expected = np.mean(np.abs(sample) < width / 2) / width
            # The edge of the frame is not in the sample, and the frame not in the curve.
            np.testing.assert_allclose(density[centre], expected, rtol=0.1)
        first, second = (text.get_text() for text in panel.get_legend().get_texts())
        assert first == "real" and second.startswith("made (") and second.endswith(" from real)")
        shown = float(second.removeprefix("made (").split()[0])
        assert shown == pytest.approx(wasserstein_distance(*samples), abs=0.01)


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="at least one group"):
        mscn_figure(tmp_path / "mscn.png", {})
    for group, message in (
        ([], "'b': found no tissue in 0 images"),
        ([np.zeros((20, 20))], "'b': found no tissue in 1"),
    ):
        with pytest.raises(ValueError, match=message):
            mscn_figure(tmp_path / "mscn.png", {"a": [_tissue(0)], "b": group})
    assert not (tmp_path / "mscn.png").exists()
