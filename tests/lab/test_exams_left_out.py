import numpy as np
import pytest

from common.lab.queue.coherence import measure_coherence
from common.lab.queue.exams_left_out import summarise


def test_coherence_is_of_what_is_shared_whatever_its_power():
    """Weaker images, unrelated ones, those that share one direction alone, and frequencies that are not there."""
    random, spacing, there = np.random.default_rng(0), np.array([1.0, 2.0]), np.ones((64, 64, 3), dtype=bool)
    stack, other = random.standard_normal((2, 64, 64, 3))
    for found in measure_coherence(stack, 0.5 * stack + 3, there, spacing, (0.1, 0.2)):
        assert found == pytest.approx((1, 0.25))
    found = np.array(measure_coherence(stack, other, there, spacing, (0.1, 0.2)))
    assert np.abs(found[:, 0]).max() < 0.2 and np.allclose(found[:, 1], 1, atol=0.3)
    spectra = [np.fft.fft(each, axis=1) for each in (stack, other)]
    high = np.abs(np.fft.fftfreq(64, 2))[None, :, None] > 0.08  # cycles/mm along the second axis
    mixed = np.fft.ifft(np.where(high, spectra[1], spectra[0]), axis=1).real
    first, _, second = (each for each, _ in measure_coherence(stack, mixed, there, spacing, (0.1, 0.2)))
    assert first > 0.95 and abs(second) < 0.3
    assert np.isnan(measure_coherence(stack, stack, there, spacing, (0.6, 0.8))).all()


def test_a_person_counts_once_over_cubic():
    rows = [
        {"person": person, "exam": exam, "left_out": "a", "result": name, "slices": "9", "psnr": value, "coherence": ""}
        for person, exam, gain in (("anna", "1", 0.1), ("anna", "2", 0.3), ("ben", "3", -0.4))
        for name, value in (("cubic", "0.5"), ("ct_guided", str(0.5 + gain)))
    ]
    found = {"method": "ct_guided", "stacks": "3", "slices": "27", "psnr": "-0.100±0.424, 1 of 2"}
    assert summarise(rows) == [found]
