"""Fourier ring correlation of patches: what it finds, and what it cannot tell."""

import numpy as np
from scipy.ndimage import gaussian_filter

from common.lab.judge.fourier_ring import find_agreeing_frequencies, map_patches

SHAPE, NYQUIST = (160, 128, 3), 0.25


def make_texture(seed: int, sigma: float = 0.7) -> np.ndarray:
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (sigma, sigma, 0))
    return 100 + 20 * texture / texture.std()


TISSUE = np.ones(SHAPE, bool)
HR = make_texture(0)


def test_a_volume_agrees_with_itself_in_any_units_and_blurred():
    for volume in (HR, 3 * HR - 20):
        frequencies, corners = find_agreeing_frequencies(volume, HR, TISSUE)
        assert len(frequencies) == len(corners) == 3 * 4 * 3 and (frequencies == 0.5).all()
    blurred = gaussian_filter(HR, (1, 1, 0), mode="wrap")
    assert (find_agreeing_frequencies(blurred, HR, TISSUE)[0] > 1.5 * NYQUIST).all()


def test_an_invented_structure_is_found_where_it_is():
    invented = HR.copy()
    invented[100:140, 20:60, 1] = make_texture(1)[100:140, 20:60, 1]
    for normal in (2, 0):  # the axis across the planes
        turned = [np.moveaxis(v, 2, normal) for v in (invented, HR, TISSUE)]
        frequencies, corners = find_agreeing_frequencies(*turned, normal)
        flagged = map_patches(frequencies < NYQUIST, corners, turned[0].shape, normal)
        flagged = np.moveaxis(flagged, normal, 2)
        assert flagged[110:130, 40, 1].min() > 0.2 and flagged[..., [0, 2]].max() == 0 and flagged[:64].max() == 0


def test_detail_beyond_the_frequency_that_is_asked_for_is_not_judged():
    """Wrong detail of high frequencies alone: patches agree up to where it begins."""
    spectrum = [np.fft.fft2(make_texture(seed, 0.1), axes=(0, 1)) for seed in (0, 1)]
    radius = np.hypot(np.fft.fftfreq(160)[:, None, None], np.fft.fftfreq(128)[:, None])
    reference = np.fft.ifft2(spectrum[0], axes=(0, 1)).real
    wrong = np.fft.ifft2(np.where(radius < 0.35, *spectrum), axes=(0, 1)).real
    frequencies, _ = find_agreeing_frequencies(wrong, reference, TISSUE)
    assert (np.abs(frequencies - 0.35) < 0.03).all()


def test_air_is_not_judged():
    tissue = np.zeros(SHAPE, bool)
    assert len(find_agreeing_frequencies(HR, HR, tissue)[0]) == 0
    tissue[:64, :64, 0] = True
    assert len(find_agreeing_frequencies(HR, HR, tissue)[0]) == 4


def test_one_axis_alone_is_judged():
    """Right detail along the first axis hides wrong detail along the second, unless the second is asked for."""
    fine, coarse = (
        gaussian_filter(np.random.default_rng(n).standard_normal(SHAPE), sigma)
        for n, sigma in ((2, (0.7, 6, 0)), (3, (6, 0.7, 0)))
    )
    wrong = np.roll(coarse, 37, axis=1)
    found = {
        along: find_agreeing_frequencies(3 * fine + wrong, 3 * fine + coarse, TISSUE, 2, along)[0]
        for along in (None, 0, 1)
    }
    assert np.median(found[1]) < NYQUIST / 2 < np.median(found[0]) and np.median(found[None]) > np.median(found[1])
