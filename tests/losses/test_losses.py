"""Losses against independent formulas, and the table that weighs them."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.special import erf
from skimage.metrics import structural_similarity

from common.losses import (
    AdaptationLoss,
    BeyondBandLoss,
    BoundaryLoss,
    CentreLoss,
    KernelSchedule,
    LossTable,
    LowFrequencyLoss,
    SquaredSSIMLoss,
    WarmUp,
)
from common.networks.slab import slab_to_channels


def tissue(*shape, seed=0, sigma=3):
    """Slabs (B, 1, H, W, Z) that are smooth in plane and differ from slice to slice."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, (0, 0, sigma, sigma, 0.5))
    return torch.from_numpy((0.5 + 0.2 * smooth / smooth.std()).astype(np.float32))


def ssim_loss(x, y):
    """Eq. 2, each sample's SSIM the mean of skimage's over its slices."""
    samples = []
    for a, b in zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True):
        slices = [
            structural_similarity(
                a[..., z], b[..., z], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
            )
            for z in range(a.shape[-1])
        ]
        samples.append(abs(1 - np.mean(slices) ** 2))
    return np.mean(samples)


def test_ssim_loss_is_equation_2_slice_by_slice():
    x = tissue(3, 1, 24, 20, 3)
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))) * torch.tensor([1, 0.6, 1.2])
    loss = SquaredSSIMLoss()
    assert 0.2 < loss(x, y).item() < 0.9
    assert loss(x, y).item() == pytest.approx(ssim_loss(x, y), abs=2e-5)
    assert loss(x, x).item() == pytest.approx(0, abs=1e-6)
    # Samples are averaged after the square and not before.
    assert loss(x, y).item() == pytest.approx(np.mean([loss(x[i : i + 1], y[i : i + 1]).item() for i in range(3)]))


def test_beyond_the_band_of_k_space():
    """What numpy leaves beyond half of each sampled axis; an error within the band costs nothing."""
    x, y = torch.rand(2, 2, 1, 16, 12, 6, dtype=torch.float64)
    k_space = np.fft.fftn((x - y).numpy(), axes=(2, 3))
    for axis, n in ((2, 16), (3, 12)):
        frequency = np.abs(np.fft.fftfreq(n, 1 / n))
        inside = np.where(frequency < n / 4, 1.0, np.where(frequency == n / 4, 0.5, 0.0))
        k_space = k_space * np.expand_dims(inside, [a for a in range(5) if a != axis])
    expected = np.abs((x - y).numpy() - np.fft.ifftn(k_space, axes=(2, 3)).real).mean()
    loss = BeyondBandLoss((2, 2, 1))
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-5)
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16)[:, None, None].expand(x.shape)
    assert loss(x, x + wave).item() < 1e-6
    assert loss(x, x + wave.abs()).item() > 0.01
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_ssim_loss_is_monais():
    x, y = torch.rand(2, 2, 1, 20, 17, 3)
    images = [slab_to_channels(slab) for slab in (x, y)]
    ssim, _ = compute_ssim_and_cs(*images, 2, (11, 11), (1.5, 1.5))
    torch.testing.assert_close(SquaredSSIMLoss()(x, y), (1 - ssim.mean(dim=(1, 2, 3)) ** 2).mean())
    assert not SquaredSSIMLoss().state_dict()


def test_ssim_loss_trains_and_stays_in_float32_under_autocast():
    x, y = tissue(1, 1, 16, 16, 3), tissue(1, 1, 16, 16, 3, seed=1).requires_grad_()
    full = SquaredSSIMLoss()(x, y)
    full.backward()
    assert torch.isfinite(y.grad).all() and y.grad.abs().max() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = SquaredSSIMLoss()(x, y)
    assert half.dtype == torch.float32 and half.item() == full.item()


def test_adaptation_loss_is_the_mean_distance_from_undecided():
    verdict = torch.tensor([[0.5, -1.0], [2.0, 0.75]])
    assert AdaptationLoss()(verdict).item() == pytest.approx((0 + 1.5 + 1.5 + 0.25) / 4)
    assert AdaptationLoss(target=0.0)(verdict).item() == pytest.approx((0.5 + 1 + 2 + 0.75) / 4)


def test_the_anchor_is_the_l1_of_gaussian_low_passes():
    sigma = 1.5
    x, y = tissue(2, 1, 20, 18, 3, sigma=1), tissue(2, 1, 20, 18, 3, seed=1, sigma=1)
    taps = np.arange(-5, 6)  # up to 3 sigma
    kernel = 0.5 * (erf((taps + 0.5) / sigma / 2**0.5) - erf((taps - 0.5) / sigma / 2**0.5))
    low = (x - y).numpy().astype(np.float64).mean(axis=-1, keepdims=True)
    for axis in (2, 3):
        low = correlate1d(low, kernel, axis=axis)
    assert LowFrequencyLoss(sigma)(x, y).item() == pytest.approx(np.abs(low[:, :, 5:-5, 5:-5]).mean(), rel=1e-4)


def test_the_anchor_sees_drift_and_leaves_detail_to_the_adversary():
    x = tissue(2, 1, 40, 40, 3)
    anchor = LowFrequencyLoss(sigma=2.0)
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    detail = 0.1 * (1 - 2 * ((rows + columns) % 2))[None, None, :, :, None]
    assert anchor(x, x + detail).item() < 1e-4  # a tenth of the range, at the Nyquist frequency
    for axis in (2, 3):
        assert anchor(x, x.roll(1, dims=axis)).item() > 0.01  # one LR pixel
    assert anchor(x, 1.1 * x).item() > 0.02
    assert anchor(x, x + 0.03).item() == pytest.approx(0.03, rel=0.02)
    assert anchor(x, x.flip(-1)).item() < 1e-6  # the order of the slices is not its to judge
    # In the order of the shift: half a pixel is half as bad.
    half = (x + x.roll(1, dims=2)) / 2
    assert anchor(x, half).item() == pytest.approx(anchor(x, x.roll(1, dims=2)).item() / 2, rel=0.01)


def test_the_anchor_compares_each_slice_where_it_is_told_to():
    x, y = tissue(2, 1, 40, 40, 3), tissue(2, 1, 40, 40, 3, seed=1)
    plain, anchor = LowFrequencyLoss(sigma=1.0), LowFrequencyLoss(sigma=1.0, each_slice=True)
    slices = [plain(x[..., z : z + 1], y[..., z : z + 1]).item() for z in range(3)]
    assert anchor(x, y).item() == pytest.approx(np.mean(slices), rel=1e-5) and slices[0] != slices[1]
    assert anchor(x, x.flip(-1)).item() > 0.01 > plain(x, x.flip(-1)).item()


def mean(tensor):
    return tensor.mean()


def never(*_, **__):
    raise AssertionError("a term of weight 0 was computed")


def test_the_table_is_a_weighted_sum_of_its_terms():
    table = LossTable(
        {
            "cycle/l1": [2, mean, "sr"],
            "off": [0.0, never, "nowhere"],
            "left out": None,
            "bare": [-0.5, torch.nn.MSELoss(reduction="none"), "sr", "hr"],
        }
    )
    assert table.inputs() == {"cycle/l1": ("sr",), "bare": ("sr", "hr")}
    sr = torch.tensor([1.0, 3.0], dtype=torch.bfloat16, requires_grad=True)
    total, parts = table({"sr": sr, "hr": torch.tensor([1.0, 1.0])})
    assert {name: part.mean().item() for name, part in parts.items()} == {"cycle/l1": 2.0, "bare": 2.0}
    assert total.item() == pytest.approx(2 * 2 - 0.5 * 2)
    assert total.dtype == torch.float32 and all(p.dtype == torch.float32 for p in parts.values())
    assert total.requires_grad and not any(p.requires_grad for p in parts.values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1.0, mean], "expected [weight, loss"),
        ({"weight": 1.0, "loss": mean, "inputs": ["sr"]}, "expected [weight, loss"),
        ("@l1", "'@l1', expected [weight, loss"),
        (["@alpha", mean, "sr"], "the weight is '@alpha'"),
        ([True, mean, "sr"], "the weight is True"),
        ([1.0, "@l1", "sr"], "the loss is '@l1'"),
        ([1.0, mean, ["sr"]], "the inputs are [['sr']]"),
        ([1.0, mean, 1], "the inputs are [1]"),
    ],
)
def test_a_wrong_row_is_named(wrong, said):
    with pytest.raises(ValueError) as error:
        LossTable({"first": [1.0, mean, "sr"], "cycle/ssim": wrong})
    assert "row 'cycle/ssim'" in str(error.value) and said in str(error.value)


def test_a_list_is_no_table():
    with pytest.raises(ValueError, match="a loss table is"):
        LossTable([{"name": "l1", "weight": 1.0, "loss": mean, "inputs": ["sr"]}])


def test_a_table_of_zeros_has_nothing_to_train_on():
    with pytest.raises(ValueError, match="weight 0"):
        LossTable({"off": [0, mean, "sr"]})({})


def test_what_losses_hold_goes_where_the_table_goes():
    schedule = KernelSchedule(3, {"bicubic": 5.0, "centre": 1.0}, {})
    losses = [LowFrequencyLoss(), SquaredSSIMLoss(), BoundaryLoss(13), CentreLoss(13, 0.0)]
    rows = {str(i): [1.0, loss, "x", "y"] for i, loss in enumerate(losses)}
    LossTable({**rows, "bicubic": [schedule["bicubic"], mean, "x"]}).to(torch.device("meta"))
    buffers = [buffer for loss in losses for buffer in loss.buffers()]
    assert len(buffers) == len(losses) and not any(loss.state_dict() for loss in losses)
    assert {t.device.type for t in [*buffers, *schedule.weights.values()]} == {"meta"}
    restored = {"iteration": 4, "weights": {name: torch.ones(3) for name in schedule.weights}}
    schedule.load_state_dict(restored)
    assert schedule["bicubic"].value().device.type == "meta"


def test_a_weight_warms_up_and_goes_on_where_it_was():
    x, y = torch.rand(2, 1, 4, 4, 3), torch.rand(2, 1, 4, 4, 3)
    weight = WarmUp(0.5, iterations=3)
    table = LossTable({"near": [1.0, torch.nn.L1Loss(), "x", "y"], "later": [weight, torch.nn.MSELoss(), "x", "y"]})
    first, both = (x - y).abs().mean().item(), (x - y).abs().mean().item() + 0.5 * (x - y).square().mean().item()
    totals = []
    for i in range(6):
        totals.append(table({"x": x, "y": y})[0].item())
        weight.step({})
        if i == 1:
            state, weight = weight.state_dict(), WarmUp(0.5, iterations=3)
            weight.load_state_dict(state)
            table.terms["later"] = (weight, *table.terms["later"][1:])
    assert totals == pytest.approx([first] * 3 + [both] * 3)
