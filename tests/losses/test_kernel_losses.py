"""The regularisers of kernels as eq. 3 writes them, and the schedule of their weights."""

import itertools

import numpy as np
import pytest
import torch

from common.losses import (
    BoundaryLoss,
    CentreLoss,
    DownscaleLoss,
    KernelSchedule,
    LossTable,
    SparsityLoss,
    SumToOneLoss,
)

SIZE = 13
FIRST = {"bicubic": 5.0, "sum_to_one": 0.5, "boundaries": 0.5, "centre": 0.0, "sparse": 0.0}
LATE = {"centre": 1.0, "sparse": 5.0}


def schedule_of(kernels=3, **changes):
    return KernelSchedule(kernels, **{"first": FIRST, "late": LATE, "interval": 2, **changes})


def by_hand(kernel, offset):
    """Eq. 3 of one kernel, tap by tap; m is 0 within two pixels of the edges; sums over taps are means."""
    k = kernel.double().numpy()
    size, middle = len(k), (len(k) - 1) / 2
    terms = {"sum": abs(1 - k.sum()), "boundaries": 0.0, "sparse": 0.0}
    centre = np.zeros(2)
    for i, j in itertools.product(range(size), repeat=2):
        if min(i, j) < 2 or max(i, j) > size - 3:
            squared = (i - middle) ** 2 + (j - middle) ** 2
            terms["boundaries"] += abs(k[i, j]) * 30 * (1 - np.exp(-squared / (2 * size**2))) / size**2
        terms["sparse"] += abs(k[i, j]) ** 0.2 / size**2
        centre += k[i, j] * np.array([i, j]) / k.sum()
    terms["centre"] = np.hypot(*(centre - middle - offset))
    return terms


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_regularisers_are_equation_3(offset):
    kernels = 0.02 * torch.randn(4, SIZE, SIZE) + torch.linspace(0, 0.02, SIZE)[:, None]
    losses = {"sum": SumToOneLoss(), "boundaries": BoundaryLoss(SIZE), "sparse": SparsityLoss()}
    losses["centre"] = CentreLoss(SIZE, offset)
    expected = [by_hand(kernel, offset) for kernel in kernels]
    for name, loss in losses.items():
        assert loss(kernels).tolist() == pytest.approx([terms[name] for terms in expected], rel=1e-4), name
    lr, reference = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 5, 4)
    downscale = np.abs(lr.numpy() - reference.numpy()).reshape(2, -1).mean(axis=1)
    assert DownscaleLoss()(lr, reference).tolist() == pytest.approx(downscale.tolist())


@pytest.mark.parametrize("loss", [SumToOneLoss(), BoundaryLoss(SIZE), SparsityLoss(), CentreLoss(SIZE, 0.0)], ids=repr)
def test_gradients_are_finite_where_taps_are_0_and_kernels_are_perfect(loss):
    kernels = torch.zeros(2, SIZE, SIZE)
    kernels[:, 6, 6] = 1
    kernels[1, 0, 3] = 1e-6
    kernels.requires_grad_()
    loss(kernels).sum().backward()
    assert torch.isfinite(kernels.grad).all()
    # A kernel's loss is its own.
    (gradient,) = torch.autograd.grad(loss(kernels)[1], kernels)
    assert not gradient[0].any()


def test_the_boundary_mask_leaves_the_inner_part_alone_and_is_symmetric():
    mask = BoundaryLoss(SIZE).mask
    assert not mask[2:-2, 2:-2].any() and (mask[:2] > 0).all() and (mask[:, -2:] > 0).all()
    assert torch.equal(mask, mask.T) and torch.equal(mask, mask.flip(0)) and mask.argmax() == 0


def test_the_schedule_follows_the_paper_for_each_kernel():
    """By hand: every 2nd iteration where bicubic is or was below 0.4 there; below 0.005 the late weights come."""
    schedule = schedule_of()
    bicubic = [  # of three kernels
        (0.3, 0.5, 0.5), (0.3, 0.3, 0.5),  # two kernels begin to decay
        (0.9, 0.9, 0.1), (0.3, 0.5, 0.4),  # both decay again, though one is above; 0.4 is not below
        (0.9, 0.9, 0.1), (0.9, 0.3, 0.3),  # both go on, and the third begins
    ]  # fmt: skip
    expected = [(5, 5, 5), (0.05, 0.05, 5), (0.05, 0.05, 5), (5e-4, 5e-4, 5), (5e-4, 5e-4, 5), (5e-6, 5e-6, 0.05)]
    for values, weights in zip(bicubic, expected, strict=True):
        schedule.step({"bicubic": torch.tensor(values)})
        assert schedule.weights["bicubic"].tolist() == pytest.approx(weights)
        late = [weight < 0.005 for weight in weights]
        assert schedule.weights["centre"].tolist() == [1.0 if is_late else 0.0 for is_late in late]
        assert schedule.weights["sparse"].tolist() == [5.0 if is_late else 0.0 for is_late in late]
        assert schedule.weights["sum_to_one"].tolist() == schedule.weights["boundaries"].tolist() == [0.5] * 3


def test_the_defaults_are_the_papers():
    schedule = KernelSchedule(1, FIRST, LATE)
    stages = []
    for _ in range(600):
        schedule.step({"bicubic": torch.tensor([0.39])})
        stages.append((schedule.weights["bicubic"].item(), schedule.weights["sparse"].item()))
    changes = [i + 1 for i in range(1, 600) if stages[i] != stages[i - 1]]
    assert changes == [200, 400, 600]
    assert [stages[i] for i in (0, 200, 400)] == [(5, 0), pytest.approx((0.05, 0)), pytest.approx((5e-4, 5))]


def test_a_schedule_goes_on_where_it_was(tmp_path):
    def steps(schedule, count):
        for _ in range(count):
            schedule.step({"bicubic": torch.tensor([0.3, 0.5, 0.3])})
        return schedule

    schedule = steps(schedule_of(), 3)
    torch.save(schedule.state_dict(), tmp_path / "state.pt")
    steps(schedule, 1)  # what was saved stays as it was
    other = schedule_of()
    weight = other["sparse"]  # of a table that was built before
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.iteration == 3 and other.weights["bicubic"].tolist() == pytest.approx([0.05, 5, 0.05])
    steps(other, 1)
    assert all(torch.equal(other.weights[name], value) for name, value in schedule.weights.items())
    assert weight.value().tolist() == [5, 0, 5]
    with pytest.raises(ValueError, match="3 kernels instead of 2"):
        schedule_of(2).load_state_dict(schedule.state_dict())


def test_a_schedule_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="bicubic, center not among the first weights, sum"):
        KernelSchedule(1, {"sum": 1.0}, {"center": 1.0})
    with pytest.raises(KeyError, match="no weight 'boundary'; known: bicubic, sum_to_one, boundaries"):
        schedule_of()["boundary"]


def test_a_table_weighs_each_kernel_by_the_schedule_as_it_is():
    schedule = schedule_of(interval=1)

    def square(x):
        return x.square()

    rows = [("bicubic", schedule["bicubic"]), ("sparse", schedule["sparse"]), ("fixed", 2.0)]
    table = LossTable({name: [weight, square, name] for name, weight in rows})
    values = {name: torch.rand(3, requires_grad=True) for name in ("bicubic", "sparse", "fixed")}
    for terms in ((0.3, 0.5, 0.3), (0.3, 0.5, 0.5)):
        total, parts = table(values)
        weights = {**schedule.weights, "fixed": torch.full((3,), 2.0)}
        expected = sum((weights[name] * values[name].detach() ** 2).sum() / 3 for name in values)
        assert total.item() == pytest.approx(expected.item())
        gradients = torch.autograd.grad(total, list(values.values()))
        for gradient, (name, value) in zip(gradients, values.items(), strict=True):
            torch.testing.assert_close(gradient, weights[name] * 2 * value.detach() / 3)
        # A term of weight 0 for now is reported all the same.
        assert all(torch.equal(parts[name], values[name].detach() ** 2) for name in values)
        schedule.step({"bicubic": torch.tensor(terms)})
    assert schedule.weights["sparse"].tolist() == [5, 0, 5]
