"""Residual-shift diffusion: what is drawn, shifted and predicted."""

import pytest
import torch

from common.networks import ResidualDenoiser, ResidualShift, SampleNoise, SampleStep, StepUNet

from ..refused import refused

X, Y, A, B = torch.rand(4, 3, 1, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()


def test_shares_are_those_of_the_paper():
    """Yue et al. 2023, eq. 10 for the root: the first times b0 to the power of ((t - 1) / (T - 1)) ** p (T - 1)."""
    b0 = (0.99 / 0.001**0.5) ** (1 / 14)
    roots = [0.001**0.5 * b0 ** (((t - 1) / 14) ** 0.3 * 14) for t in range(1, 16)]
    torch.testing.assert_close(ResidualShift(15, 2.0).shares, torch.tensor(roots) ** 2)


@pytest.mark.parametrize("step", [1, 3])
def test_a_step_back_from_the_truth_has_the_distribution_of_the_step_before(step):
    """The mean and the variance of the image before a step, where the truth is predicted, are those of the forward
    process (Yue et al. 2023, eq. 2)."""
    shift, zero = ResidualShift(4, 0.3), torch.zeros_like(X)
    steps = torch.full((3,), step)

    def back(first, second):
        return shift.go_back(shift(X, Y, steps, first), X, step, second)

    expected = shift(X, Y, steps - 1, zero)
    torch.testing.assert_close(back(zero, zero), expected)
    deviations = back(A, zero) - expected, back(zero, B) - expected
    variance = (deviations[0] / A) ** 2 + (deviations[1] / B) ** 2
    torch.testing.assert_close(variance, ((shift(X, Y, steps - 1, A) - expected) / A) ** 2)
    assert shift.go_back(Y, X, 0, A) is X
    torch.testing.assert_close(shift.start(Y, A), shift(Y, Y, torch.full((3,), 3), A))


@pytest.mark.parametrize("draw", [SampleStep(4), SampleNoise()])
def test_two_processes_draw_what_one_draws(draw, monkeypatch):
    torch.manual_seed(0)
    one = draw(torch.zeros(400, 1, 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        torch.manual_seed(0)
        shares.append(draw(torch.zeros(200, 1, 2)))
    assert torch.equal(torch.cat(shares), one)
    if isinstance(draw, SampleStep):
        assert torch.bincount(one).min() > 50 and one.max() == 3


def test_it_starts_with_the_interpolation_and_then_knows_the_step_at_any_size():
    torch.manual_seed(0)
    network = ResidualDenoiser(StepUNet([4, 8, 8], 1, 4), ResidualShift(4, 0.3)).eval()
    image = torch.rand(2, 2, 50, 47)
    with torch.no_grad():
        assert torch.equal(network(image), image[:, 1:])
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        result = network(image, torch.tensor([1, 2]))
        for i in range(2):
            torch.testing.assert_close(result[i : i + 1], network(image[i : i + 1], i + 1))
            assert not torch.allclose(result[i : i + 1], network(image[i : i + 1], 3), atol=1e-3)
        # What is far away does not count: no norm, no attention.
        wide = torch.rand(2, 2, 50, 400)
        wide[..., :47] = image
        torch.testing.assert_close(network(wide, 1)[..., :8], network(wide[..., :200], 1)[..., :8])


def test_what_is_no_diffusion_is_refused():
    refused(lambda: ResidualShift(steps=0), ValueError, "steps")
    refused(lambda: ResidualShift(kappa=0.0), ValueError, "kappa", 0.0)
