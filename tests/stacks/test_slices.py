import numpy as np
import pytest
import torch

from common.stacks import StackOperator, estimate_motions, measure_residuals, weigh_slices

from .phantom import Phantom, acquire, grid, moved


@pytest.mark.parametrize("packages", [True, False])
def test_where_slices_lie_is_found(packages):
    """Odd and even slices, or each slice: to a tenth of a millimetre where it shows something."""
    phantom, rng = Phantom(5), np.random.default_rng(0)
    stack, (shape, affine) = acquire(phantom, 0), grid(2, thick=1)
    count = stack.voxels.shape[2]
    groups = np.arange(count) % 2 if packages else np.arange(count)
    numbers = np.concatenate([rng.uniform(-1.5, 1.5, (count, 3)), rng.uniform(-2, 2, (count, 3))], axis=1)
    true = np.stack([moved(numbers[group]) for group in groups])
    for i, motion in enumerate(true):
        place = stack.affine.copy()
        place[:3, 3] += i * place[:3, 2]
        one = phantom.stack((*stack.voxels.shape[:2], 1), place, np.linalg.inv(motion))
        stack.voxels[..., i] = torch.from_numpy(one[..., 0])
    volume = torch.from_numpy(phantom.on(shape, affine)).float()
    operator = StackOperator(shape, affine, stack.voxels.shape, stack.affine)
    found, left = estimate_motions(operator.average(volume), affine, stack, operator.weights, groups)
    points = np.stack([[0, y, z] for y in (-12, 12) for z in (-12, 12)])
    off = []
    for i in range(4, count - 4):
        middle = (stack.affine @ [*(np.array(stack.voxels.shape[:2]) - 1) / 2, i, 1])[:3]
        difference = true[i] - found[i]
        off.append(np.linalg.norm((points + middle) @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())
    assert np.mean(off) < 0.1 and left < 0.25


def test_slices_that_show_something_else_do_not_count():
    """A black slice, and one that is unlike; a slice of which nothing is known counts."""
    shown = torch.rand(30, 30, 12, generator=torch.Generator().manual_seed(0)) + 0.5
    stack = shown + 0.05 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(1))
    counts = torch.ones_like(shown)
    stack[..., 4], stack[..., 7], counts[..., 9] = 0, shown[..., 8], 0
    residuals = measure_residuals(stack, shown, counts)
    power = shown[..., [i for i in range(12) if i != 9]].square().mean().sqrt()
    assert float(residuals[4]) == pytest.approx(float(shown[..., 4].square().mean().sqrt() / power), rel=1e-4)
    assert float(residuals[0]) == pytest.approx(0.05 / float(power), rel=0.1) and residuals[9].isnan()
    assert torch.equal(weigh_slices(residuals), torch.tensor([1.0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1]))
    some = weigh_slices(torch.tensor([0.1] * 9 + [0.15]))  # between the limit of 0.12 and twice that
    assert some[:9].eq(1).all() and float(some[9]) == pytest.approx((0.12 / 0.15) ** 2)
    assert weigh_slices(torch.full((3,), torch.nan)).eq(1).all()
