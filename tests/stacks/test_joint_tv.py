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


def compute_sum(volumes, measured, means, weight, known=0.0):
    """The equation, written down once more."""
    total, squares = 0.0, known + 0.01**2
    for volume, each, mean in zip(volumes, measured, means, strict=True):
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
        compute_sum(minimise_joint_tv(start, measured, WEIGHT, VOXEL, iterations=20, rounds=n), measured, means, WEIGHT)
        for n in (1, 2, 4, 8, 60)
    ]
    assert all(after <= before for before, after in itertools.pairwise(sums))
    found = [each.clone().requires_grad_() for each in start]
    search = torch.optim.LBFGS(found, max_iter=400, history_size=30, line_search_fn="strong_wolfe", tolerance_change=0)

    def step():
        search.zero_grad()
        total = compute_sum(found, measured, means, WEIGHT)
        total.backward()
        return total

    search.step(step)
    least = float(compute_sum([each.detach() for each in found], measured, means, WEIGHT))
    assert float(sums[-1]) == pytest.approx(least, rel=2e-3)


def error(result, true):
    return float((result - true).square().mean())


def test_a_contrast_shows_another_where_its_edges_are():
    """Where the other is fine; a known one does the same, one of the same planes nothing."""
    volumes, measured = contrasts()
    start = [each.operators[0].adjoint(each.stacks[0]) for each in measured]
    run = {"weight": WEIGHT, "voxel": VOXEL, "iterations": 10, "rounds": 10}
    together = minimise_joint_tv(start, measured, **run)[0]
    alone = minimise_joint_tv(start[:1], measured[:1], **run)[0]
    guided = minimise_joint_tv(start[:1], measured[:1], guides=volumes[1:], **run)[0]
    assert error(together, volumes[0]) < 0.9 * error(alone, volumes[0])
    assert error(guided, volumes[0]) < 0.9 * error(alone, volumes[0])


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
