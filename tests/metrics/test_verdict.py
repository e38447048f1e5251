"""What a result is worth: HR is finer than cubic and agrees with its scan, and what is not worth it is told apart."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.degradations import GaussianProfile, KSpaceTruncation
from common.geometry.resampling import resample_volume
from common.geometry.stack import Stack
from common.metrics.verdict import compare_with_cubic, describe_errors, describe_verdict
from common.stacks.fitting import FittedStack, compare_with_stacks

AFFINE = np.array([[0, -0.9, 0.1, 5], [1.0, 0, 0, -7], [0.1, 0.1, 1, 3], [0, 0, 0, 1]])
SIZE = 64


def make_head(seed=0):
    noise = np.random.default_rng(seed).normal(size=(2, SIZE, SIZE, SIZE))
    fine, coarse = (ndimage.gaussian_filter(each, sigma) > 0 for each, sigma in zip(noise, (2, 5), strict=True))
    distance = np.linspace(-1, 1, SIZE) ** 2
    head = distance[:, None, None] + distance[:, None] + distance < 0.9
    sharp = np.where(head, 300 + 400 * fine + 200 * coarse, 0.0)
    return torch.from_numpy(ndimage.gaussian_filter(sharp, 0.7)).float()


@pytest.fixture(scope="module", params=[KSpaceTruncation((2, 2, 2)), GaussianProfile((1, 1, 4))], ids=str)
def exam(request):
    """HR, its scan with noise and affine, the scan's cubic interpolation, and white noise."""
    hr, degradation = make_head(), request.param
    lr = degradation(hr[None])[0]
    lr = (lr + 8 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(1))).abs()
    affine = np.asarray(degradation.compute_lr_affine(AFFINE))
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(2))
    return hr, lr, affine, resample_volume(lr, affine, hr.shape, AFFINE), noise, degradation.factors


def test_results_by_what_they_are_worth(exam):
    hr, lr, affine, cubic, noise, factors = exam
    axis = int(np.argmax(factors))
    smooth = torch.from_numpy(ndimage.gaussian_filter(cubic.numpy(), [n / 3 if n > 1 else 0 for n in factors]))
    expected = {
        "finer than cubic, differs by ": [hr, 0.5 * hr + 0.5 * cubic, hr + 15 * noise],
        "hardly differs from cubic": [cubic, cubic + 2 * noise],
        "neither finer nor smoother than cubic": [cubic + 20 * noise],
        "contradicts the scan: keep cubic": [0.8 * hr, smooth, cubic.roll(factors[axis], axis), hr.flip(axis)],
    }
    for begin, results in expected.items():
        for result in results:
            comparison = compare_with_cubic(result, AFFINE, lr, affine)
            said = describe_verdict(comparison, "")
            assert said.startswith(begin), (begin, comparison)
            assert (", agrees with the scan, within what the weights know" in said) == begin.startswith("finer")
    compared = compare_with_cubic(hr, AFFINE, lr, affine)
    assert "agrees with the scan, but voxels" in describe_verdict(compared, "voxels are small")
    assert describe_verdict(compared).endswith("agrees with the scan")
    assert describe_verdict(compared, "", warned=True).startswith("contradicts the scan: keep cubic")
    assert describe_verdict(compare_with_cubic(cubic, AFFINE, lr, affine), "so").endswith("brightness; so")


def test_neither_units_nor_stored_axes_matter(exam):
    hr, lr, affine, *_ = exam
    turned = affine[:, [2, 0, 1, 3]] @ np.array(
        [[-1.0, 0, 0, lr.shape[2] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    first = compare_with_cubic(hr, AFFINE, lr, affine)
    other = compare_with_cubic(hr / 1000, AFFINE, lr.permute(2, 0, 1).flip(0) / 1000, turned)
    assert other.brightness == pytest.approx(first.brightness / 1000, rel=1e-3)
    for name in ("difference", "sharpening", "misfit", "cubic_misfit", "misfits"):
        value = getattr(first, name)
        assert getattr(other, name) == pytest.approx(value, rel=0.03, abs=1e-4), name  # rounding at the border


def test_stacks_are_compared_where_they_lie_with_the_better_cubic():
    """HR explains two stacks better than cubic of either; a result that lies elsewhere, or is as dark, does not."""
    hr, moved, fitted = make_head(), np.eye(4), []
    moved[:3, 3] = 6, -5, 4
    for factor, order in ((4, [0, 1, 2]), (8, [2, 0, 1])):
        degradation = GaussianProfile((1, 1, factor))
        turn = np.eye(4)[:, [*order, 3]]
        lr, place = degradation(hr.permute(order)[None])[0], turn @ degradation.compute_lr_affine(np.eye(4))
        stack = Stack(lr, moved @ place, 1.0, f"by {factor}", torch.ones(lr.shape, dtype=torch.bool))
        ones = torch.ones(lr.shape[2])
        fitted.append(FittedStack(stack, None, None, 2 * ones, ones, ones))  # and half as bright
    for stacks, cubic, scan in ((fitted[:1], "cubic", "the scan"), (fitted, "cubic of by 4", "its stacks")):
        compared = compare_with_stacks(hr / 2, moved, stacks)
        assert describe_verdict(compared).startswith(f"finer than {cubic}, differs by ")
        assert max(compared.misfits) < 0.02 and len(compared.misfits) == len(stacks)
        wrong = compare_with_stacks(hr / 2, np.eye(4), stacks), compare_with_stacks(hr, moved, stacks)
        for each in wrong:
            assert describe_verdict(each).startswith(f"contradicts {scan}: keep {cubic}; ")
    assert compared.cubic_misfit > 1.1 * compare_with_stacks(hr / 2, moved, fitted[:1]).cubic_misfit


def test_without_tissue_there_is_no_verdict():
    for scan in (torch.zeros(8, 8, 8), torch.full((8, 8, 8), 3.0), torch.eye(4).expand(4, 4, 4)):
        assert compare_with_cubic(torch.zeros(16, 16, 16), np.eye(4), scan, np.diag([2, 2, 2, 1])) is None


def test_errors_against_hr():
    assert describe_errors(0.1, 0.2) == "nearer to HR than cubic; nrmse in tissue 0.100, cubic 0.200"
    assert describe_errors(0.2, 0.1).startswith("farther from HR than cubic: keep cubic")
    assert describe_errors(0.1, 0.1005).startswith("as near to HR as cubic")
