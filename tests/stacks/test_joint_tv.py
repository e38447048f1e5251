"""Joint total variation: its minimum by another program, and what it shares between contrasts."""

import itertools

import pytest
import torch

from common.stacks import MeasuredContrast, StackOperator, minimise_joint_tv

from .phantom import Phantom, grid

SHAPE, AFFINE = grid(2, size=16, thick=1)
VOXEL = 2.0
VARIANCE = 0.02**2
WEIGHT = 0.2


def measure(volume, across):
    operator = StackOperator(SHAPE, AFFINE, *grid(across, size=16))
    return MeasuredContrast([operator(volume)], [operator], [VARIANCE])


def contrasts(across=(2, 0)):
    """Two contrasts of one anatomy, of which each is thick along an axis, and what was measured."""
    every = torch.from_numpy(Phantom(0).on(SHAPE, AFFINE)).float()
    volumes = [every, (1 - every) * (every > 0.02)]
    return volumes, [measure(volume, a) for volume, a in zip(volumes, across, strict=True)]


def tissue(volume):
    return volume[volume > volume.mean()].mean()


def compute_sum(volumes, measured, means, weight, start):
    """The equation, written down once more. Where slices hardly reach, the start is measured with an error of 0.03."""
    total, squares = 0.0, 0.01**2
    for volume, each, mean, first in zip(volumes, measured, means, start, strict=True):
        reached = each.operators[0].adjoint(torch.ones_like(each.stacks[0]))
        left = volume - first
        total = (
            total
            + ((left / (0.03 * mean)) ** 2)[reached < 0.5 * reached[reached > 0.01 * reached.max()].median()].sum() / 2
        )
        for stack, operator, variance in zip(each.stacks, each.operators, each.variances, strict=True):
            total = total + (stack - operator(volume)).square().sum() / (2 * variance)
        for axis in range(3):
            slope = torch.zeros_like(volume)
            slope.narrow(axis, 0, 15).copy_(volume.diff(dim=axis) / VOXEL)
            squares = squares + (slope / mean) ** 2
    noise = (sum(VARIANCE / mean**2 for mean in means) / len(means)) ** 0.5
    return total + weight / noise * VOXEL**3 * squares.sqrt().sum()


def test_the_minimum_is_that_of_another_program():
    _, measured = contrasts()
    start = [
        torch.full(SHAPE, 0.2) + 0.1 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
    ]
    means = [tissue(each) for each in start]
    sums = [
        compute_sum(
            minimise_joint_tv(start, measured, WEIGHT, VOXEL, iterations=20, rounds=n), measured, means, WEIGHT, start
        )
        for n in (1, 2, 4, 8, 60)
    ]
    assert all(after <= before for before, after in itertools.pairwise(sums))
    found = [each.clone().requires_grad_() for each in start]
    search = torch.optim.LBFGS(found, max_iter=400, history_size=30, line_search_fn="strong_wolfe", tolerance_change=0)

    def step():
        search.zero_grad()
        total = compute_sum(found, measured, means, WEIGHT, start)
        total.backward()
        return total

    search.step(step)
    least = float(compute_sum([each.detach() for each in found], measured, means, WEIGHT, start))
    assert float(sums[-1]) == pytest.approx(least, rel=2e-3)


def spread(each):
    """A stack, spread over the volume."""
    (operator,), (stack,) = each.operators, each.stacks
    return operator.adjoint(stack) / operator.adjoint(torch.ones_like(stack)).clamp_min(0.05)


def error(result, true):
    return float((result - true).square().mean())


@pytest.mark.parametrize(("plane", "shows"), [(0, True), (2, False)])
def test_a_contrast_shows_another_where_its_edges_are(plane, shows):
    """Where the other is fine; a known one shows them anywhere, one of the same planes nothing."""
    shape, affine = grid(2, size=24, thick=1)
    axis = torch.arange(24) - 11.5
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    ball, box = (x**2 + y**2 + z**2).sqrt() < 9, (x.abs() < 4) & (y.abs() < 5) & ((z - 1).abs() < 3)
    volumes, measured = [0.5 * ball + 0.4 * box, 0.8 * ball - 0.5 * box], []
    for volume, across in zip(volumes, (2, plane), strict=True):
        operator = StackOperator(shape, affine, *grid(across, size=24))
        measured.append(MeasuredContrast([operator(volume)], [operator], [0.01**2]))
    start = [spread(each) for each in measured]
    run = {"weight": WEIGHT, "voxel": 1.0, "iterations": 10, "rounds": 10}
    together = error(minimise_joint_tv(start, measured, **run)[0], volumes[0])
    alone = error(minimise_joint_tv(start[:1], measured[:1], **run)[0], volumes[0])
    guided = error(minimise_joint_tv(start[:1], measured[:1], guides=volumes[1:], **run)[0], volumes[0])
    assert (together < 0.9 * alone) == shows and together < 1.01 * alone
    assert guided < 0.8 * alone


def test_units_do_not_count():
    """Neither those of one contrast, nor its sign of contrast to another."""
    _, measured = contrasts()
    start = [each.operators[0].adjoint(each.stacks[0]) for each in measured]
    run = {"weight": WEIGHT, "voxel": VOXEL, "rounds": 3}
    first = minimise_joint_tv(start, measured, **run)
    other = measured[1]
    scaled = MeasuredContrast([1000 * other.stacks[0]], other.operators, [1e6 * VARIANCE])
    second = minimise_joint_tv([start[0], 1000 * start[1]], [measured[0], scaled], **run)
    torch.testing.assert_close(second[0], first[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(second[1] / 1000, first[1], atol=1e-3, rtol=0)


def test_what_no_slice_reaches_keeps_the_start():
    """Also where slices cover less than half of the volume."""
    shape, affine = grid(2, size=24, thick=1)
    stack_shape, stack_affine = grid(2, size=24)
    operator = StackOperator(shape, affine, (*stack_shape[:2], 2), stack_affine)
    measured = MeasuredContrast([operator(torch.ones(shape))], [operator], [VARIANCE])
    uncovered = measured.find_uncovered()[12, 12]
    assert uncovered[12:].all() and not uncovered[3:6].any()
