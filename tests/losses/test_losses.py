"""Losses against independent formulas, the table that weighs them, and weights that change."""

import monai.losses
import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.special import erf

from common import losses
from common.losses import GradientPenalty, LossTable, PerceptualLoss, WassersteinLoss
from common.networks import VGG16Features
from common.networks.slab import slab_to_channels
from tests.refused import refused

SIZE = 13
FIRST = {"bicubic": 5.0, "sum_to_one": 0.5, "boundaries": 0.5, "centre": 0.0, "sparse": 0.0}
LATE = {"centre": 1.0, "sparse": 5.0}


def tissue(*shape, seed=0, sigma=3.0):
    """Slabs (B, 1, H, W, Z) that are smooth in plane and differ from slice to slice."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, (0, 0, sigma, sigma, 0.5))
    return torch.from_numpy((0.5 + 0.2 * smooth / smooth.std()).astype(np.float32))


def test_ssim_loss_is_equation_2_slice_by_slice_and_trains_in_float32():
    """With MONAI's SSIM; samples are averaged after the square and not before."""
    x, loss = tissue(3, 1, 24, 20, 3), losses.SquaredSSIMLoss()
    y = (x + 0.1 * torch.randn(x.shape)) * torch.tensor([1, 0.6, 1.2])
    assert 0.2 < loss(x, y).item() < 0.9
    assert loss(x, x).item() == pytest.approx(0, abs=1e-6)
    ssim, _ = compute_ssim_and_cs(slab_to_channels(x), slab_to_channels(y), 2, (11, 11), (1.5, 1.5))
    torch.testing.assert_close(loss(x, y), (1 - ssim.mean(dim=(1, 2, 3)) ** 2).mean())
    images = slab_to_channels(x), slab_to_channels(y)
    torch.testing.assert_close(losses.SSIMLoss()(*images), monai.losses.SSIMLoss(2)(*images))
    full = loss(x, y.requires_grad_())
    full.backward()
    assert torch.isfinite(y.grad).all() and y.grad.abs().max() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(x, y)
    assert half.dtype == torch.float32 and half.item() == full.item()


def test_the_anchor_is_the_l1_of_gaussian_low_passes_of_the_mean_slice_or_of_each():
    sigma = 1.5
    x, y = tissue(2, 1, 20, 18, 3, sigma=1), tissue(2, 1, 20, 18, 3, seed=1, sigma=1)
    taps = np.arange(-5, 6)  # up to 3 sigma
    kernel = 0.5 * (erf((taps + 0.5) / sigma / 2**0.5) - erf((taps - 0.5) / sigma / 2**0.5))
    low = correlate1d(correlate1d((x - y).double(), kernel, axis=2), kernel, axis=3)[:, :, 5:-5, 5:-5]
    assert losses.LowFrequencyLoss(sigma)(x, y).item() == pytest.approx(np.abs(low.mean(axis=-1)).mean(), rel=1e-4)
    assert losses.LowFrequencyLoss(sigma, each_slice=True)(x, y).item() == pytest.approx(np.abs(low).mean(), rel=1e-4)
    assert losses.LowFrequencyLoss().kernel.numel() == 13  # sigma is 2


def test_the_table_is_a_weighted_sum_of_its_terms():
    bare = [0.5, torch.nn.MSELoss(reduction="none"), "sr", "hr"]
    rows = {"cycle/l1": [2, torch.mean, "sr"], "off": [0.0, torch.mean, "nowhere"], "left out": None, "bare": bare}
    rows["number"] = [1, torch.nn.L1Loss(), "sr", 4]
    table = losses.LossTable(rows)
    assert table.list_inputs() == {"cycle/l1": ("sr",), "bare": ("sr", "hr"), "number": ("sr",)}
    sr = torch.tensor([1.0, 3.0], dtype=torch.bfloat16, requires_grad=True)
    total, parts = table({"sr": sr, "hr": torch.tensor([1.0, 1.0])})
    assert {name: part.mean().item() for name, part in parts.items()} == {"cycle/l1": 2.0, "bare": 2.0, "number": 2.0}
    assert total.item() == pytest.approx(2 * 2 + 0.5 * 2 + 2)
    assert total.dtype == torch.float32 and all(p.dtype == torch.float32 for p in parts.values())
    assert total.requires_grad and not any(p.requires_grad for p in parts.values())


def test_refused():
    for wrong, said in (
        ([1.0, torch.mean], "expected [weight, loss"),
        ({"weight": 1.0, "loss": torch.mean, "inputs": ["sr"]}, "expected [weight, loss"),
        ("@l1", "'@l1', expected [weight, loss"),
        (["@alpha", torch.mean, "sr"], "the weight is '@alpha'"),
        ([True, torch.mean, "sr"], "the weight is True"),
        ([-0.5, torch.mean, "sr"], "the weight is -0.5, expected 0 or more"),
        ([1.0, "@l1", "sr"], "the loss is '@l1'"),
        ([1.0, torch.mean, ["sr"]], "the inputs are [['sr']]"),
        ([1.0, torch.mean, 1], "the inputs are [1]"),
        ([1.0, torch.mean, "sr", True], "the inputs are ['sr', True]"),
    ):
        rows = {"first": [1.0, torch.mean, "sr"], "cycle/ssim": wrong}
        refused(lambda rows=rows: losses.LossTable(rows), ValueError, "row 'cycle/ssim'", said)
    refused(lambda: losses.LossTable([{"name": "l1", "weight": 1.0}]), ValueError, "'l1'")
    refused(lambda: losses.LossTable({"off": [0, torch.mean, "sr"]})({}), ValueError, "weight 0")
    refused(lambda: losses.KernelSchedule(1, {"sum": 1}, {"center": 1}), ValueError, "bicubic, center", "first", "sum")
    refused(lambda: schedule_of()["boundary"], KeyError, "'boundary'", "bicubic, sum_to_one, boundaries")
    refused(lambda: schedule_of(2).load_state_dict(schedule_of().state_dict()), ValueError, "3 kernels instead of 2")


def test_what_losses_hold_goes_where_the_table_goes():
    schedule = losses.KernelSchedule(3, {"bicubic": 5.0, "centre": 1.0}, {})
    terms = [losses.LowFrequencyLoss(), losses.SquaredSSIMLoss(), losses.BoundaryLoss(13), losses.CentreLoss(13, 0.0)]
    rows = {str(i): [1.0, loss, "x", "y"] for i, loss in enumerate(terms)}
    losses.LossTable({**rows, "bicubic": [schedule["bicubic"], torch.mean, "x"]}).to(torch.device("meta"))
    buffers = [buffer for loss in terms for buffer in loss.buffers()]
    assert len(buffers) == len(terms) and not any(loss.state_dict() for loss in terms)
    assert {t.device.type for t in [*buffers, *schedule.weights.values()]} == {"meta"}
    schedule.load_state_dict({"iteration": 4, "weights": {name: torch.ones(3) for name in schedule.weights}})
    assert schedule["bicubic"].get_value().device.type == "meta"


def test_a_weight_warms_up_and_goes_on_where_it_was():
    (x, y), weight, totals = torch.rand(2, 2, 1, 4, 4, 3), losses.WarmUp(3, 0.5), []
    rows = {"near": [1.0, torch.nn.L1Loss(), "x", "y"], "later": [weight, torch.nn.MSELoss(), "x", "y"]}
    table = losses.LossTable(rows)
    for i in range(6):
        totals.append(table({"x": x, "y": y})[0].item())
        weight.step({})
        if i == 1:
            state, weight = weight.state_dict(), losses.WarmUp(3, 0.5)
            weight.load_state_dict(state)
            table.terms["later"] = (weight, *table.terms["later"][1:])
    first, later = (x - y).abs().mean().item(), 0.5 * (x - y).square().mean().item()
    assert totals == pytest.approx([first] * 3 + [first + later] * 3)


def schedule_of(kernels=3, interval=2):
    return losses.KernelSchedule(kernels, FIRST, LATE, interval=interval)


def by_hand(kernel, offset):
    """Eq. 3 of one kernel, tap by tap; m is 0 within two pixels of the edges; sums over taps are means."""
    k = kernel.double().numpy()
    size, middle = len(k), (len(k) - 1) / 2
    boundaries, sparse, centre = 0.0, 0.0, np.zeros(2)
    for i, j in np.ndindex(k.shape):
        if min(i, j) < 2 or max(i, j) > size - 3:
            distance = np.hypot(i - middle, j - middle) / size
            boundaries += abs(k[i, j]) * 30 * (1 - np.exp(-(distance**2) / 2)) / size**2
        sparse += abs(k[i, j]) ** 0.2 / size**2
        centre += k[i, j] * np.array([i, j]) / k.sum()
    return abs(1 - k.sum()), boundaries, sparse, np.hypot(*(centre - middle - offset))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_regularisers_are_equation_3_and_their_gradients_are_finite(offset):
    terms = [losses.SumToOneLoss(), losses.BoundaryLoss(SIZE), losses.SparsityLoss(), losses.CentreLoss(SIZE, offset)]
    kernels = 0.02 * torch.randn(4, SIZE, SIZE) + torch.linspace(0, 0.02, SIZE)[:, None]
    found = [loss(kernels).tolist() for loss in terms]
    for i, kernel in enumerate(kernels):
        assert [values[i] for values in found] == pytest.approx(by_hand(kernel, offset), rel=1e-4)
    kernels = torch.zeros(2, SIZE, SIZE)  # taps of 0, and a perfect kernel
    kernels[:, 6, 6] = 1
    kernels[1, 0, 3] = 1e-6
    kernels.requires_grad_()
    for loss in terms:
        assert torch.isfinite(torch.autograd.grad(loss(kernels).sum(), kernels)[0]).all()
        assert not torch.autograd.grad(loss(kernels)[1], kernels)[0][0].any()  # a kernel's loss is its own
    lr, reference = torch.rand(2, 2, 3, 5, 4)
    downscale = np.abs(lr.numpy() - reference.numpy()).reshape(2, -1).mean(axis=1)
    assert losses.DownscaleLoss()(lr, reference).tolist() == pytest.approx(downscale.tolist())


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
        assert schedule.weights["centre"].tolist() == [1.0 * (weight < 0.005) for weight in weights]
        assert schedule.weights["sparse"].tolist() == [5.0 * (weight < 0.005) for weight in weights]
        assert schedule.weights["sum_to_one"].tolist() == schedule.weights["boundaries"].tolist() == [0.5] * 3
    assert losses.KernelSchedule(1, FIRST, LATE).interval == 200  # the paper's


def test_a_schedule_goes_on_where_it_was(tmp_path):
    schedule, other, terms = schedule_of(), schedule_of(), {"bicubic": torch.tensor([0.3, 0.5, 0.3])}
    for _ in range(3):
        schedule.step(terms)
    torch.save(schedule.state_dict(), tmp_path / "state.pt")
    schedule.step(terms)  # what was saved stays as it was
    weight = other["sparse"]  # of a table that was built before
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.iteration == 3 and other.weights["bicubic"].tolist() == pytest.approx([0.05, 5, 0.05])
    other.step(terms)
    assert all(torch.equal(other.weights[name], value) for name, value in schedule.weights.items())
    assert weight.get_value().tolist() == [5, 0, 5]


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


def test_it_is_that_of_the_features_and_off_without_weights(tmp_path, capsys):
    path = tmp_path / "vgg.pth"
    shapes = {0: (64, 3), 2: (64, 64)}
    state = {f"features.{i}.weight": torch.randn(*size, 3, 3) / 20 for i, size in shapes.items()}
    torch.save(state | {f"features.{i}.bias": torch.randn(64) for i in shapes}, path)
    loss, features = PerceptualLoss(path, "relu1_2").to("cpu"), VGG16Features(path, "relu1_2")
    a, b = torch.rand(2, 2, 1, 12, 8, requires_grad=True)
    torch.testing.assert_close(loss(a, b), (features(a) - features(b)).square().mean())
    assert loss.has_weights and not capsys.readouterr().out
    refused(lambda: PerceptualLoss(None, required=True), FileNotFoundError, "--vgg_weights FILE", "--lambda_3 0")
    off = PerceptualLoss(None)
    assert "perceptual loss is off" in capsys.readouterr().out
    assert not LossTable({"perceptual": [0.5 * off.has_weights, off, "a", "b"]}).to("cpu").terms
