import numpy as np
import pytest
import torch

from common.geometry.resampling import SplineResampling
from common.stacks import GuidingEdges, StackOperator, combine_in_k_space, enforce_data_consistency

from .phantom import Phantom, grid

ACROSS = [np.array([1.0, 0, 0]), np.array([0, 0, 1.0])]
SHAPE, AFFINE = grid(2, size=32, thick=1)


def wave(axis: int, cycles: int) -> torch.Tensor:
    """A wave along an axis, as a volume."""
    shape = [-1 if axis == other else 1 for other in range(3)]
    return torch.cos(2 * torch.pi * cycles * torch.arange(32) / 32).reshape(shape).expand(32, 32, 32)


def test_each_volume_gives_what_its_slices_let_through():
    """Of two volumes, of which each is wrong across its slices, the fine waves are right, the mean of coarse ones."""
    right = wave(0, 12) + wave(2, 12)
    volumes = [wave(2, 12) + 1, wave(0, 12) + 3]  # each has lost the fine wave across its own slices
    everywhere = torch.ones(32, 32, 32, dtype=torch.bool)
    result = combine_in_k_space(volumes, [everywhere] * 2, ACROSS, [2.0, 2.0], [0.0, 0.0])
    assert torch.allclose(result - result.mean(), right, atol=0.01)
    assert float(result.mean()) == pytest.approx(2.0, abs=1e-4)


def test_what_one_does_not_cover_the_other_gives():
    half = torch.zeros(32, 32, 32, dtype=torch.bool)
    half[:16] = True
    volumes = [torch.full((32, 32, 32), 5.0), torch.full((32, 32, 32), 5.0) * half]
    result = combine_in_k_space(volumes, [half | True, half], ACROSS, [2.0, 2.0], [0.0, 0.1])
    assert torch.allclose(result, torch.tensor(5.0), atol=1e-4)


def test_noise_is_averaged_where_the_head_is_faint():
    rng = torch.Generator().manual_seed(0)
    head = torch.from_numpy(Phantom(2).on(SHAPE, AFFINE)).float()
    volumes = [head + 0.1 * torch.randn(head.shape, generator=rng) for _ in range(2)]
    everywhere = [torch.ones_like(head, dtype=torch.bool)] * 2
    ignored, known = (combine_in_k_space(volumes, everywhere, ACROSS, [2.0, 2.0], [nu, nu]) for nu in (0.0, 0.1))
    errors = [(result - head).square().mean() for result in (ignored, known, sum(volumes) / 2)]
    assert errors[1] < 0.85 * errors[0] and errors[1] == pytest.approx(float(errors[2]), rel=0.05)


def stacks_of(volume):
    """Three operators, and what they show of a volume."""
    operators = [StackOperator(SHAPE, AFFINE, *grid(across, size=32)) for across in range(3)]
    return operators, [operator(volume) for operator in operators]


def test_the_result_agrees_with_all_stacks():
    true = torch.from_numpy(Phantom().on(SHAPE, AFFINE)).float()
    operators, stacks = stacks_of(true)
    start = torch.full(SHAPE, 0.3)
    result = enforce_data_consistency(start, stacks, operators, [1e-6] * 3, error=1.0, iterations=40)
    before, after = (
        max(float((a(x) - y).abs().mean()) for a, y in zip(operators, stacks, strict=True)) for x in (start, result)
    )
    assert after < 0.02 * before
    assert float((result - true).square().mean()) < 0.05 * float((start - true).square().mean())


def test_stacks_count_as_far_as_their_noise_allows():
    """The solution is that of the equation; of two stacks that contradict each other the quiet one is believed."""
    operators, stacks = stacks_of(torch.zeros(SHAPE))
    operators, stacks = operators[:1] * 2, [stacks[0] + 1.0, stacks[0]]
    start, variances, error = torch.zeros(SHAPE), [1e-4, 9e-4], 0.3
    result = enforce_data_consistency(start, stacks, operators, variances, error, iterations=30)
    missed = [a(result) - y for a, y in zip(operators, stacks, strict=True)]
    gradient = sum(a.adjoint(m) / v for a, m, v in zip(operators, missed, variances, strict=True)) + result / error**2
    assert gradient.abs().max() < 1e-3 * (1 / variances[0])
    seen = operators[0].weights > 0
    assert float(operators[0](result)[seen].mean()) == pytest.approx(0.9, abs=0.01)  # by 1 / variance
    assert torch.equal(enforce_data_consistency(start, stacks[1:], operators[1:], [1e-4], iterations=3), start)


def test_a_guide_lends_its_edges_and_not_its_grey_values():
    (shape, affine), (thick, thick_affine) = grid(2, thick=1), grid(2)
    true, guide = (torch.from_numpy(Phantom(3, contrast).on(shape, affine)).float() for contrast in (1, -1))
    stack = torch.from_numpy(Phantom(3).stack(thick, thick_affine)).float()
    operator = StackOperator(shape, affine, thick, thick_affine)
    start = SplineResampling(thick, shape, np.linalg.inv(thick_affine) @ affine)(stack)
    alone, guided, inverted = (
        enforce_data_consistency(start, [stack], [operator], [1e-5], guides=g) for g in ((), [guide], [1 - guide])
    )
    errors = [(volume - true).square().mean() for volume in (alone, guided)]
    assert errors[1] < 0.9 * errors[0], errors
    assert torch.allclose(guided, inverted, atol=1e-5)
    flat = torch.full(shape, 0.5)
    assert torch.allclose(
        enforce_data_consistency(flat, [operator(flat)], [operator], [1e-5], guides=[guide]), flat, atol=1e-4
    )


def test_the_form_of_guides_is_that_of_their_mean_total_variation(monkeypatch):
    """Also in slabs of two planes, and one."""
    monkeypatch.setattr("common.stacks.guide._POINTS", 48)
    rng = torch.Generator().manual_seed(0)
    x, other, *guides = (torch.rand(5, 6, 4, generator=rng, dtype=torch.float64) for _ in range(4))
    form = GuidingEdges(guides).linearise_around(x)
    assert torch.allclose((form(other) * x).sum(), (other * form(x)).sum())
    x.requires_grad_()

    def slopes(v):
        return torch.stack([torch.cat([v.diff(dim=a), 0 * v.narrow(a, 0, 1)], dim=a) for a in range(3)])

    for guide in guides:
        along = slopes(guide) / (slopes(guide).square().sum(0) + 0.03**2).sqrt()
        across = slopes(x) - along * (along * slopes(x)).sum(0)
        (across.square().sum(0) + 0.02**2).sqrt().sum().backward()
    assert torch.allclose(2 * form(x.detach()), x.grad / len(guides))
