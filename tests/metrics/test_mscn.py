"""MSCN coefficients: eq. 4 to 6 by loops; the slices that count."""

import numpy as np

from common.metrics import compute_mscn, select_slices
from common.metrics.mscn import mask_tissue
from tests.refused import refused


def test_mscn_is_equations_4_to_6():
    image = np.random.default_rng(0).random((9, 11))
    grey = 255 * np.pad(image, 3, mode="edge")
    window = np.array([[np.exp(-(k**2 + n**2) / 2) for n in range(-3, 4)] for k in range(-3, 4)])
    window /= window.sum()
    expected, air = np.zeros(image.shape), mask_tissue(image / 10)
    for m, n in np.ndindex(image.shape):
        around = grey[m : m + 7, n : n + 7]
        mu = (window * around).sum()
        sigma = np.sqrt((window * (around - mu) ** 2).sum())
        expected[m, n] = (255 * image[m, n] - mu) / (sigma + 1)
        assert air[m, n] == (mu / 255 / 10 >= 0.05)
    np.testing.assert_allclose(compute_mscn(image), expected, atol=1e-9)
    np.testing.assert_allclose(compute_mscn(np.full((20, 20), 0.7)), 0, atol=1e-9)


def test_slices_that_count_are_not_nearly_all_air():
    volume = np.zeros((20, 20, 4))
    volume[:2, :2, 1], volume[5:15, 5:15, 3] = 1, 0.4  # below 5 % of the slice, and above
    assert select_slices(volume) == [3]
    refused(lambda: select_slices(volume[..., :2]), ValueError, "none of 2")
    for image, words in ((np.zeros((20, 20, 20)), "(20, 20, 20)"), (np.eye(20, dtype=np.uint8), "uint8")):
        refused(lambda image=image: compute_mscn(image), ValueError, words, "2-D images")
    refused(lambda: compute_mscn(np.full((20, 20), np.nan)), ValueError, "not finite")
