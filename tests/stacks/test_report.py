"""What is said of the stacks of an exam."""

import numpy as np
import pytest
import torch

from common.geometry.stack import Stack
from common.metrics.verdict import CubicComparison
from common.runtime.errors import Notice
from common.stacks.fitting import FittedStack
from common.stacks.report import report_misfits


@pytest.mark.parametrize("misfit", [0.05, 0.2])
def test_a_misfit_far_beyond_noise_is_a_warning_that_names_slices(misfit):
    noisy = 0.5 + 0.01 * torch.randn(32, 32, 12, generator=torch.Generator().manual_seed(0))
    stack = Stack(noisy, np.eye(4), 1.0, "ax.nii.gz", torch.ones(32, 32, 12, dtype=torch.bool))
    ones, residuals = torch.ones(12), torch.full((12,), 0.1)
    residuals[[0, 1, 2, 7]] = 0.3
    fitted = FittedStack(stack, None, None, ones, ones, residuals)
    comparison = CubicComparison(0.1, 0.1, misfit, misfit, 0.5, (misfit,))
    with pytest.warns(UserWarning, match=r"ax.nii.gz .* most in slices 0 to 2, 7\)") as caught:
        report = report_misfits(comparison, [fitted])["ax.nii.gz"]
    assert report["Misfit"] == misfit and report["Noise"] == pytest.approx(0.02, rel=0.2)
    assert issubclass(caught[0].category, Notice) == (misfit == 0.05)
    assert ("far above the noise of ax.nii.gz" in str(caught[0].message)) == (misfit == 0.2)
