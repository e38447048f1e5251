"""The adversarial losses: binary cross-entropy, and a gradient where the discriminator is sure."""

import pytest
import torch
from monai.losses import PatchAdversarialLoss

from common.losses import CrossEntropyLoss, GradientPenalty, LeastSquaresLoss, WassersteinLoss


@pytest.mark.parametrize("target", [0, 1.0])
def test_they_are_the_mean_of_every_verdict(target):
    for shape in ((3, 3, 4, 5), (7,)):
        logits = 3 * torch.randn(shape, dtype=torch.float64)
        real = 1 / (1 + (-logits).exp())
        expected = -(real if target else 1 - real).log().mean()
        torch.testing.assert_close(CrossEntropyLoss(target)(logits), expected)
    verdict = torch.randn(2, 1, 5, 6)
    expected = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    torch.testing.assert_close(LeastSquaresLoss(target)(verdict), expected(verdict, bool(target), True))


@pytest.mark.parametrize(("target", "logit"), [(1, -50.0), (1, -300.0), (0, 50.0), (0, 300.0)])
def test_a_generator_that_is_found_out_still_learns(target, logit):
    logits = torch.full((2, 1), logit, requires_grad=True)
    loss = CrossEntropyLoss(target)(logits)
    loss.backward()
    assert loss.item() == abs(logit) and (logits.grad * 2).tolist() == [[1.0 - 2 * target]] * 2


def test_the_critic_of_wasserstein():
    """It raises the real and lowers the generated; a linear critic's slope is its weights wherever it is taken."""
    verdict = torch.randn(4, 1)
    assert WassersteinLoss(True)(verdict) == -verdict.mean() and WassersteinLoss(False)(verdict) == verdict.mean()
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    real, fake = torch.rand(2, 3, 1, 3, 4)
    penalty = GradientPenalty(critic)(real, fake, torch.rand(3, 1))
    slope = critic[1].weight.norm()
    torch.testing.assert_close(penalty, (slope - 1).square())
    penalty.backward()
    torch.testing.assert_close(critic[1].weight.grad, (2 * (slope - 1) * critic[1].weight / slope).detach())
    # Between the two images, each pair at a place of its own.
    seen, share = [], torch.tensor([[0.25], [1.0]])
    GradientPenalty(lambda x: seen.append(x) or x.square().sum())(
        torch.ones(2, 1, 3), torch.full((2, 1, 3), 5.0), share
    )
    assert torch.equal(seen[0], (5 - 4 * share)[:, None].expand(2, 1, 3))
