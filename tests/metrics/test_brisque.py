"""BRISQUE: eq. 4 to 6 by loops, fits of known distributions, the regressor and its file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import gennorm

from common.metrics import Brisque, brisque_features, mscn
from common.metrics.brisque import aggd, ggd, tissue
from tests.pictures import picture

SETTING = {"C": 10.0, "gamma": 0.05, "epsilon": 0.05}


def _features(images):
    return np.stack([brisque_features(image) for image in images])


def test_mscn_is_equations_4_to_6():
    image = np.random.default_rng(0).random((9, 11))
    grey = 255 * np.pad(image, 3, mode="edge")
    window = np.array([[np.exp(-(k**2 + n**2) / 2) for n in range(-3, 4)] for k in range(-3, 4)])
    window /= window.sum()
    expected = np.zeros(image.shape)
    for m, n in np.ndindex(image.shape):
        around = grey[m : m + 7, n : n + 7]
        mu = (window * around).sum()
        sigma = np.sqrt((window * (around - mu) ** 2).sum())
        expected[m, n] = (255 * image[m, n] - mu) / (sigma + 1)
        assert tissue(image / 10)[m, n] == (mu / 255 / 10 >= 0.05)
    np.testing.assert_allclose(mscn(image), expected, atol=1e-9)
    np.testing.assert_allclose(mscn(np.full((20, 20), 0.7)), 0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_fits_give_back_the_distribution_that_samples_were_drawn_from(alpha):
    """Samples of both kinds along leading axes; independent: scipy's generalised Gaussian, and its sides scaled."""
    symmetric = gennorm.rvs(alpha, scale=3, size=(2, 200_000), random_state=0)
    shape, variance = ggd(symmetric)
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variance, [gennorm.var(alpha, scale=3)] * 2, rtol=0.05)

    # A density with a peak of one height has beta / (sum of betas) of its samples on each side.
    rng, betas = np.random.default_rng(1), (1.0, 2.5)
    right = rng.random(symmetric.shape) < betas[1] / sum(betas)
    samples = np.where(right, betas[1], -betas[0]) * np.abs(symmetric) / 3
    # The other way round in the second row: the fit is that of a mirror image.
    samples[1] *= -1
    shape, eta, *variances = aggd(samples)
    expected = [gennorm.var(alpha, scale=beta) for beta in betas]
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variances, [expected, expected[::-1]], rtol=0.06)
    np.testing.assert_allclose(eta, samples.mean(axis=1), rtol=0.05)


def test_features_are_the_fits_at_two_scales_in_their_order():
    image = picture(0)
    values = brisque_features(image).reshape(2, 18)
    # Away from the borders: there is where implementations may differ.
    c = mscn(image)
    np.testing.assert_allclose(values[0, :2], ggd(c.ravel()))
    for number, (m, n) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        product = c * np.roll(c, (-m, -n), axis=(0, 1))
        np.testing.assert_allclose(values[0, 2 + 4 * number : 6 + 4 * number], aggd(product[:-1, 1:-1].ravel()))
    # Half size is low-passed: what oscillates from pixel to pixel does not come back as something coarse.
    stripes = 0.1 * np.cos(2 * np.pi * 0.37 * np.arange(64))
    for size in (64, 63):  # both come to 32 pixels
        first, second = (brisque_features(x[:size, :size])[18:] for x in (0.9 * image, 0.9 * image + stripes))
        assert second[1] / first[1] < 1.5
    assert brisque_features(0.9 * image + stripes)[1] / brisque_features(0.9 * image)[1] > 3


def test_features_follow_blur_and_noise():
    noise = np.random.default_rng(5).normal(size=(64, 64))
    sharp = picture(1)
    blurred = _features([gaussian_filter(sharp, sigma) for sigma in (0.01, 0.6, 1.0, 1.6)])
    noisy = _features([sharp + sigma * noise for sigma in (0.0, 0.02, 0.05, 0.1)])
    # The variance of the coefficients falls with blur and rises with noise, at both scales.
    for feature in (1, 19):
        assert (np.diff(blurred[:, feature]) < 0).all() and (np.diff(noisy[:, feature]) > 0).all()
    # Blur makes neighbours alike, noise makes them independent: the mean of their products says so.
    for feature in (3, 7):
        assert np.all(np.diff(blurred[:, feature] / blurred[:, 1]) > 0)
        assert noisy[-1, feature] / noisy[-1, 1] < noisy[0, feature] / noisy[0, 1]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32)), "constant"),
        (np.full((32, 32), 0.5, np.float32), "constant"),
        (np.random.default_rng(0).random((13, 40)), r"14 pixels on each side, found shape \(13, 40\)"),
        (np.random.default_rng(0).random((20, 20, 20)), r"2-D images.*\(20, 20, 20\)"),
        (np.eye(20, dtype=np.uint8), "uint8"),
        (np.full((20, 20), np.nan), "not finite"),
    ],
)
def test_features_refuse_what_they_cannot_measure(image, message):
    with pytest.raises(ValueError, match=message):
        brisque_features(image)


@pytest.fixture(scope="module")
def fitted():
    levels = np.tile([0.3, 0.7, 1.1, 1.5, 1.9, 2.3], 4)
    return Brisque(_features([picture(i, blur) for i, blur in enumerate(levels)]), 100 - 30 * levels, SETTING)


def test_unseen_images_are_put_in_the_order_of_their_quality(fitted):
    levels = [0.5, 0.9, 1.3, 1.7, 2.1]
    scores = [
        np.mean([fitted.score(picture(100 + 10 * i + j, blur)[..., None]) for j in range(4)])
        for i, blur in enumerate(levels)
    ]
    assert (np.diff(scores) < 0).all()
    np.testing.assert_allclose(scores, 100 - 30 * np.array(levels), atol=12)


def test_the_score_of_a_volume_is_the_mean_over_the_slices_that_are_not_nearly_all_air(fitted):
    first, second = picture(40, 0.5), picture(41, 2.0)
    rim = np.zeros_like(first)
    rim[0] = 0.5  # under 5 % of the slice
    expected = np.mean([fitted.score(image[..., None]) for image in (first, second)])
    volume = np.stack([np.zeros_like(first), first, rim, second], axis=-1)
    assert fitted.score(volume) == pytest.approx(expected)
    assert fitted.score(torch.from_numpy(volume)[None, None]) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="no slice counts"):
        fitted.score(volume[..., ::2])
    with pytest.raises(ValueError, match=r"shape \(2, 64, 64, 4\)"):
        fitted.score(np.stack([volume, volume]))
    with pytest.raises(ValueError, match="slice 0: the image is constant"):
        fitted.score(np.full((20, 20, 2), 0.5))


def test_a_regressor_comes_back_from_its_file_as_it_was(fitted, tmp_path):
    volume = picture(50, 1.0)[..., None]
    fitted.save(tmp_path / "new" / "regressor")  # not by the name that numpy would make of it
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["regressor"]
    assert Brisque.load(tmp_path / "new" / "regressor").score(volume) == fitted.score(volume)


class _Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_other_files_are_refused_by_name_and_not_run(fitted, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "regressor.npz"
    fitted.save(path)
    good = path.read_bytes()
    with np.load(path) as data:
        content = dict(data)

    def spoil(**changes):
        np.savez(path, **{key: value for key, value in {**content, **changes}.items() if value is not None})

    def flip():
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :])

    spoilt = [
        lambda: path.write_bytes(pickle.dumps(_Malicious(mark))),
        lambda: spoil(features=np.array([_Malicious(mark)], dtype=object)),
        lambda: path.write_bytes(good[: len(good) // 2]),
        flip,
        lambda: path.write_bytes(b""),
        lambda: np.save(path.open("wb"), np.zeros((5, 36))),
        lambda: np.savez(path, other=np.zeros(3)),
        lambda: spoil(format="something else"),
        lambda: spoil(gamma=None),
        lambda: spoil(gamma=0.0),
        lambda: spoil(C="many"),
        lambda: spoil(features=content["features"][:, :30]),
        lambda: spoil(features=content["features"][:-1]),
        lambda: spoil(scores=np.full_like(content["scores"], np.nan)),
    ]
    for make in spoilt:
        make()
        with pytest.raises(ValueError, match=r"regressor\.npz: no BRISQUE regressor, or a damaged one.*brisque-fit"):
            Brisque.load(path)
    assert not mark.exists()
    with pytest.raises(FileNotFoundError, match=r"none\.npz.*brisque-fit"):
        Brisque.load(tmp_path / "none.npz")
