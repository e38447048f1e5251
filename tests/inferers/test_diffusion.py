"""Sampling by residual-shift diffusion."""

import pytest
import torch

from common.degradations import GaussianProfile, KSpaceTruncation, interpolate
from common.inferers import ResidualShiftInferer
from common.networks import ResidualShift

HR = torch.rand(1, 1, 16, 12, 8, generator=torch.Generator().manual_seed(0))
HALVED = KSpaceTruncation((2, 2, 2))
LR = HALVED(HR).clamp_min(0)


def soften(images, step):
    """A network that uses both images and the step."""
    return 0.5 * images[:, 1:] + (0.1 + 0.1 * step) * images[:, :1].relu()


def test_samples_follow_the_posterior():
    """Where HR differs from the interpolation by normal numbers of one deviation, so do samples, and their spread is
    it: the network gives the mean over HR that the image after a step allows, by the formula for normal numbers."""
    shift, deviation = ResidualShift(200, 0.3), 0.2

    def predict(images, step):
        share = float(shift.shares[step])
        gain = (1 - share) * deviation**2 / ((1 - share) ** 2 * deviation**2 + 0.3**2 * share)
        return images[:, 1:] + gain * (images[:, :1] - images[:, 1:])

    degradation = GaussianProfile((2, 2, 1))
    lr = torch.rand(1, 1, 12, 12, 6) + 2
    inferer = ResidualShiftInferer(shift, degradation, samples=24, iterations=0)
    difference = inferer(lr, predict) - interpolate(lr, degradation)
    assert inferer.spread.square().mean().sqrt() == pytest.approx(deviation, rel=0.06)
    assert difference.std() == pytest.approx(deviation / 24**0.5, rel=0.1) and difference.mean().abs() < 0.01


def test_the_seed_decides_whatever_the_threads_and_samples_are_counted():
    def sample(seed, samples=1, iterations=1):
        inferer = ResidualShiftInferer(ResidualShift(3, 0.2), HALVED, seed, samples, iterations)
        return inferer(LR, soften), inferer.spread

    first, none = sample(0)
    assert none is None
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.testing.assert_close(sample(0)[0], first)
        assert not torch.allclose(sample(1)[0], first, atol=1e-3)
        mean, spread = sample(0, 2)
    finally:
        torch.set_num_threads(threads)
    second = 2 * mean - first
    torch.testing.assert_close(spread, (second - first).abs() / 2**0.5, atol=1e-5, rtol=1e-4)
    assert spread.mean() > 0.001
    # The mean of two that agree with the scan does so too, which no step without the correction does.
    errors = [(HALVED(sample(0, 2, n)[0]) - LR).abs().mean() for n in (0, 8)]
    assert errors[1] < 0.2 * errors[0]


def test_volumes_of_a_batch_have_noise_of_their_own():
    inferer = ResidualShiftInferer(ResidualShift(3, 0.2), HALVED)
    pair = inferer(torch.cat([LR, LR]), soften)
    torch.testing.assert_close(pair[:1].mean(), pair[1:].mean(), atol=0.02, rtol=0)
    assert not torch.allclose(pair[:1], pair[1:], atol=1e-3)
