"""BRISQUE: eq. 4 to 6 by loops, fits of known distributions, the regressor and its file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import gennorm

from common.metrics import Brisque, compute_brisque_features, compute_mscn
from common.metrics.brisque import find_tissue, fit_aggd, fit_ggd
from tests.pictures import picture
from tests.refused import refused


def test_mscn_is_equations_4_to_6():
    image = np.random.default_rng(0).random((9, 11))
    grey = 255 * np.pad(image, 3, mode="edge")
    window = np.array([[np.exp(-(k**2 + n**2) / 2) for n in range(-3, 4)] for k in range(-3, 4)])
    window /= window.sum()
    expected, air = np.zeros(image.shape), find_tissue(image / 10)
    for m, n in np.ndindex(image.shape):
        around = grey[m : m + 7, n : n + 7]
        mu = (window * around).sum()
        sigma = np.sqrt((window * (around - mu) ** 2).sum())
        expected[m, n] = (255 * image[m, n] - mu) / (sigma + 1)
        assert air[m, n] == (mu / 255 / 10 >= 0.05)
    np.testing.assert_allclose(compute_mscn(image), expected, atol=1e-9)
    np.testing.assert_allclose(compute_mscn(np.full((20, 20), 0.7)), 0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_fits_give_back_the_distribution_that_samples_were_drawn_from(alpha):
    """Samples of both kinds along leading axes; independent: scipy's generalised Gaussian, and its sides scaled."""
    symmetric = gennorm.rvs(alpha, scale=3, size=(2, 200_000), random_state=0)
    shape, variance = fit_ggd(symmetric)
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variance, [gennorm.var(alpha, scale=3)] * 2, rtol=0.05)
    # A density with a peak of one height has beta / (sum of betas) of its samples on each side.
    rng, betas = np.random.default_rng(1), (1.0, 2.5)
    right = rng.random(symmetric.shape) < betas[1] / sum(betas)
    samples = np.where(right, betas[1], -betas[0]) * np.abs(symmetric) / 3
    samples[1] *= -1  # the other way round: the fit is that of a mirror image
    shape, eta, *variances = fit_aggd(samples)
    expected = [gennorm.var(alpha, scale=beta) for beta in betas]
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variances, [expected, expected[::-1]], rtol=0.06)
    np.testing.assert_allclose(eta, samples.mean(axis=1), rtol=0.05)


@pytest.mark.parametrize("size", [64, 63])  # both come to 32 pixels
def test_features_are_the_fits_at_two_scales_in_their_order(size):
    """Half the size is as Pillow has it, low-passed."""
    image = picture(0)[:size, :size]
    half = Image.fromarray(image.astype(np.float32)).resize((32, 32), Image.Resampling.BICUBIC)
    values = compute_brisque_features(image).reshape(2, 18)
    for found, pixels, rtol in ((values[0], image, 1e-7), (values[1], np.asarray(half, np.float64), 1e-3)):
        c = compute_mscn(pixels)
        products = [c * np.roll(c, (-m, -n), axis=(0, 1)) for m, n in ((0, 1), (1, 0), (1, 1), (1, -1))]
        # Away from the borders: there is where implementations may differ.
        fits = [fit_ggd(c.ravel()), *(fit_aggd(product[:-1, 1:-1].ravel()) for product in products)]
        np.testing.assert_allclose(found, np.concatenate(fits), rtol=rtol)


@pytest.fixture(scope="module")
def fitted():
    levels = np.tile([0.3, 0.7, 1.1, 1.5, 1.9, 2.3], 4)
    features = np.stack([compute_brisque_features(picture(i, blur)) for i, blur in enumerate(levels)])
    return Brisque(features, 100 - 30 * levels, {"C": 10.0, "gamma": 0.05, "epsilon": 0.05})


def test_unseen_images_are_put_in_the_order_of_their_quality(fitted):
    levels = np.array([0.5, 0.9, 1.3, 1.7, 2.1])
    stacks = [np.stack([picture(100 + 10 * i + j, blur) for j in range(4)], -1) for i, blur in enumerate(levels)]
    scores = [fitted.compute_score(stack) for stack in stacks]
    assert (np.diff(scores) < 0).all()
    np.testing.assert_allclose(scores, 100 - 30 * levels, atol=12)


@pytest.fixture(scope="module")
def volume():
    """Two slices that count, one of air, and one with a rim on less than 5 % of it."""
    first, second = picture(40, 0.5), picture(41, 2.0)
    air, rim = np.zeros((2, *first.shape))
    rim[0] = 0.5
    return np.stack([air, first, rim, second], axis=-1)


def test_the_score_of_a_volume_is_the_mean_over_the_slices_that_are_not_nearly_all_air(fitted, volume):
    expected = np.mean([fitted.compute_score(volume[..., [z]]) for z in (1, 3)])
    assert fitted.compute_score(volume) == pytest.approx(expected)
    assert fitted.compute_score(torch.from_numpy(volume)[None, None]) == pytest.approx(expected, rel=1e-3)


def test_refused(fitted, volume):
    random = np.random.default_rng(0).random
    for call, words in (
        (lambda: compute_brisque_features(np.zeros((32, 32))), ["constant"]),
        (lambda: compute_brisque_features(np.full((32, 32), 0.5, np.float32)), ["constant"]),
        (lambda: compute_brisque_features(random((13, 40))), ["14 pixels", "(13, 40)"]),
        (lambda: compute_brisque_features(random((20, 20, 20))), ["2-D images", "(20, 20, 20)"]),
        (lambda: compute_brisque_features(np.eye(20, dtype=np.uint8)), ["uint8"]),
        (lambda: compute_brisque_features(np.full((20, 20), np.nan)), ["not finite"]),
        (lambda: fitted.compute_score(volume[..., ::2]), ["no slice counts"]),
        (lambda: fitted.compute_score(np.stack([volume, volume])), ["(2, 64, 64, 4)"]),
        (lambda: fitted.compute_score(np.full((20, 20, 2), 0.5)), ["slice 0", "constant"]),
    ):
        refused(call, ValueError, *words)


def test_a_regressor_comes_back_from_its_file_and_other_files_are_refused_and_not_run(fitted, volume, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "new" / "regressor"
    malicious = type("Malicious", (), {"__reduce__": lambda self: (Path.touch, (mark,))})()
    fitted.save(path)  # not by the name that numpy would make of it
    assert [p.name for p in path.parent.iterdir()] == ["regressor"]
    assert Brisque.load(path).compute_score(volume) == fitted.compute_score(volume)
    good, content, path = path.read_bytes(), dict(np.load(path)), tmp_path / "regressor.npz"
    middle = len(good) // 2

    def spoil(**changes):
        np.savez(path, **{key: value for key, value in {**content, **changes}.items() if value is not None})

    spoilt = [
        lambda: path.write_bytes(pickle.dumps(malicious)),
        lambda: spoil(features=np.array([malicious], dtype=object)),
        lambda: path.write_bytes(good[:middle]),
        lambda: path.write_bytes(good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :]),
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
        refused(lambda: Brisque.load(path), ValueError, "regressor.npz", "no BRISQUE regressor", "brisque-fit")
    assert not mark.exists()
    refused(lambda: Brisque.load(tmp_path / "none.npz"), FileNotFoundError, "none.npz", "brisque-fit")
