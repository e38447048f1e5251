"""The adversarial losses: binary cross-entropy, and a gradient where the discriminator is sure."""

import pytest
import torch
from monai.losses import PatchAdversarialLoss

from common.losses import CrossEntropyLoss, LeastSquaresLoss


@pytest.mark.parametrize("target", [0, 1.0])
@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (7,)], ids=str)
def test_it_is_the_mean_cross_entropy_of_every_verdict(shape, target):
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    real = 1 / (1 + (-logits).exp())
    expected = -(real if target else 1 - real).log().mean()
    torch.testing.assert_close(CrossEntropyLoss(target)(logits), expected)


@pytest.mark.parametrize(("target", "logit"), [(1, -50.0), (1, -300.0), (0, 50.0), (0, 300.0)])
def test_a_generator_that_is_found_out_still_learns(target, logit):
    logits = torch.full((2, 1), logit, requires_grad=True)
    loss = CrossEntropyLoss(target)(logits)
    loss.backward()
    assert loss.item() == abs(logit) and (logits.grad * 2).tolist() == [[1.0 - 2 * target]] * 2


@pytest.mark.parametrize("target", [0, 1.0])
def test_least_squares_are_those_of_monai(target):
    verdict = torch.randn(2, 1, 5, 6)
    expected = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    torch.testing.assert_close(LeastSquaresLoss(target)(verdict), expected(verdict, bool(target), True))
