"""Training on the scan itself: it helps where the scan has something to teach, and never leaves worse weights."""

import copy

import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch import nn
from torch.nn import functional

from common.degradations import DegradeAndInterpolate, FittedProfile, GaussianProfile, interpolate, make_slice_profile
from common.inferers import AdaptedInferer, AntiAliasingInferer, InterpolatedInferer, OrthogonalInferer
from common.inferers.duration import estimate_seconds
from common.networks import EDSR, RDN, WDSR, ImageNetwork, SelfAntiAliasing
from common.runtime.precision import apply_precision
from tests.refused import refused

FACTOR = 3
THICKEN = GaussianProfile((1, 1, FACTOR))
PLAIN = OrthogonalInferer()


def adapting(degradation=THICKEN, iterations=80, learning_rate=5e-3, inner=PLAIN, lr_patch=(24, 8), **options):
    return AdaptedInferer(inner, degradation, iterations, 4, lr_patch, learning_rate, **options)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RDN(THICKEN, features=8, growth=8, blocks=1, layers=2).eval().requires_grad_(False)


def blobs(texture=0.05):
    """Two textured tissues with sharp edges in all directions, isotropic."""
    noise = (torch.randn(48, 48, 72, generator=torch.Generator().manual_seed(seed)).numpy() for seed in (0, 1))
    edges, field = (torch.from_numpy(ndimage.gaussian_filter(n, s)) for n, s in zip(noise, (2.5, 1.0), strict=True))
    return (0.4 + 0.4 * (edges > 0) + texture * field / field.std())[None, None].float()


def test_a_scan_teaches_what_its_slices_lack(network):
    hr, inferer = blobs(), adapting()
    lr = THICKEN(hr)
    given = copy.deepcopy(network.state_dict())
    adapted = inferer(lr, network)
    error, better = ((result - hr).square().mean() for result in (PLAIN(lr, network), adapted))
    assert better < 0.9 * error
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    assert torch.equal(adapted, inferer(lr, network)), "the same scan gives the same result"
    assert not torch.equal(adapted, adapting(seed=1)(lr, network)), "and other patches another"


def test_the_minutes_of_a_training_are_measured_on_a_copy(network):
    given, inferer = copy.deepcopy(network.state_dict()), adapting(iterations=400)
    least, most = inferer.measure_training(THICKEN(blobs()), network)
    assert 0 < most == pytest.approx(4 * least) and inferer.iterations == 400
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    assert inferer.measure_training(blobs(), torch.nn.Identity()) == (0, 0), "nothing to train"
    inferer.degradation = make_slice_profile(THICKEN.factors, "auto")
    fastest, slowest = estimate_seconds(inferer, THICKEN(blobs()), network)
    assert 0 < fastest < slowest, "also with a profile that is not fitted yet"


@pytest.mark.parametrize("amp", [False, True])
def test_it_trains_in_the_precision_of_the_network_and_by_the_same_bits_on_any_threads(network, amp):
    lr, given, seen, results = THICKEN(blobs()), apply_precision(network, "cpu", amp, None), set(), []

    def through(volume, better):
        assert all(value.dtype == torch.float32 for value in better.state_dict().values())
        assert all(value.grad is None for value in better.parameters())
        return PLAIN(volume, better)

    network.head.register_forward_hook(lambda layer, inputs, output: seen.add((layer.training, output.dtype)))
    threads = torch.get_num_threads()
    inferer = adapting(FittedProfile(THICKEN.factors), 12, 5e-3, through, (48, 48), gains=0.05)
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append((inferer(lr, given), inferer.report))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1] and results[0][1]["Used"]
    computed = torch.bfloat16 if amp else torch.float32
    assert seen == {(True, computed), (False, computed)}


def test_parts_of_a_batch_make_the_gradient_of_the_whole(network, monkeypatch):
    lr, results = THICKEN(blobs()), []
    for pixels in (1, 4096):  # parts of one patch, and of two and one
        monkeypatch.setattr("common.inferers.adapted._PIXELS", pixels)
        inferer = AdaptedInferer(PLAIN, THICKEN, 3, 3, (48, 16), 1e-3)
        results.append(inferer(lr, network))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


def test_slices_that_overlap_become_thin_by_the_profile_that_the_scan_shows(network):
    hr, inferer = blobs(), adapting(FittedProfile(THICKEN.factors))
    lr = GaussianProfile((1, 1, FACTOR), fwhm=1.3)(hr)
    assumed, fitted = ((each(lr, network) - hr).square().mean() for each in (adapting(), inferer))
    assert fitted < 0.97 * assumed
    assert inferer.report["Used"] and inferer.report["Profile"] == pytest.approx(1.2, abs=0.1)
    assert inferer.report["ProfileFrom"] == "scan"
    for thickness, source in ((3.9, "protocol"), (0.39, "scan"), (39, "scan")):  # of slices 3 mm apart
        inferer(MetaTensor(lr, torch.diag(torch.tensor([1.0, 1, 3, 1])), {"SliceThickness": thickness}), network)
        assert inferer.report["ProfileFrom"] == source and inferer.report["ProfileTold"] == pytest.approx(thickness / 3)
    inferer(lr[..., :6], network)
    assert (inferer.report["Profile"], inferer.report["ProfileFrom"]) == (1, "assumed")
    assert "ProfileTold" not in inferer.report


@pytest.mark.parametrize(("true", "told", "used"), [(0.4, 1.5, False), (1.0, 1.0, True), (1.3, 1.2, True)])
def test_rims_that_no_slice_has_are_not_taken(network, true, told, used):
    """Thin slices that are taken for thick ones gain on the planes all the same; the weights are used as they were."""
    lr = GaussianProfile((1, 1, FACTOR), fwhm=true)(blobs())
    inferer = adapting(GaussianProfile((1, 1, FACTOR), fwhm=told), 110)
    result, said = inferer(lr, network), inferer.report
    assert said["Used"] == used and said["PsnrAdapted"] > said["Psnr"] + 1
    limit = max(2 * said["OvershootInPlane"], 0.005, said["OvershootOriginal"])
    assert (said["Overshoot"] > limit) != used
    assert torch.equal(result, PLAIN(lr, network)) != used
    assert said["Iterations"] == (110 if used else 100), "a training in vain stops early"
    unchecked = adapting(GaussianProfile((1, 1, FACTOR), fwhm=told), 110, check_rims=False)
    assert not torch.equal(unchecked(lr, network), PLAIN(lr, network)) and "Overshoot" not in unchecked.report
    if not used:
        threads = torch.get_num_threads()
        torch.set_num_threads(3 - min(threads, 2))
        inferer(lr, network)
        torch.set_num_threads(threads)
        assert inferer.report == said, "on one thread as on two"


class Sharpen(nn.Module):
    """Interpolates the last axis, and sharpens along it."""

    def __init__(self):
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(3.0))

    def forward(self, images):
        fine = functional.interpolate(images, scale_factor=(1, FACTOR), mode="bilinear")
        return fine + self.amount * (fine - functional.avg_pool2d(fine, (1, 7), 1, (0, 3), count_include_pad=False))


def test_rims_are_accepted_if_the_original_weights_draw_more():
    """What is not used is replaced by the original weights, so this would make more rims, not fewer."""
    lr = GaussianProfile((1, 1, FACTOR), fwhm=0.4)(blobs())
    inferer = adapting(GaussianProfile((1, 1, FACTOR), fwhm=1.5), 5, 0.2)
    inferer(lr, Sharpen())
    said = inferer.report
    assert said["OvershootOriginal"] > said["Overshoot"] > max(2 * said["OvershootInPlane"], 0.005) and said["Used"]
    original, inferer.learning_rate = Sharpen(), 0.05
    nn.init.constant_(original.amount, 1.5)  # too little, so that training draws a few more
    inferer(lr, original)
    assert inferer.report["Overshoot"] > inferer.report["OvershootOriginal"]
    assert inferer.report["NotUsed"]


def test_gains_keep_what_one_slice_alone_has_from_being_sharpened(network):
    lr = THICKEN(blobs())
    gains = (0.05 * torch.randn(lr.shape[4], generator=torch.Generator().manual_seed(2))).exp()
    inferers = (PLAIN, adapting(iterations=200, gains=0.15), adapting(iterations=200))
    means = [[inferer(images, network).mean(dim=(0, 1, 2, 3)) for images in (lr * gains, lr)] for inferer in inferers]
    interpolated, with_gains, without = (torch.div(*pair).log()[9:-9].std() for pair in means)
    assert with_gains < 1.25 * interpolated and without > 1.45 * interpolated


def test_a_network_that_begins_where_interpolation_ends():
    """Trained from nothing on interpolated planes, at a factor that is not whole, it beats the interpolation."""
    thicken = GaussianProfile((1, 1, 2.5))
    network = ImageNetwork(EDSR(features=8, blocks=1)).eval()
    hr = (blobs(texture=0)[..., :70] - 0.4) / 0.4
    lr, inner = thicken(hr), InterpolatedInferer(PLAIN, thicken)
    base = interpolate(lr, thicken)
    torch.testing.assert_close(inner(lr, network), base)
    adapted = adapting(DegradeAndInterpolate(thicken), inner=inner, lr_patch=(24, 24))(lr, network)
    assert adapted.shape == hr.shape
    assert (adapted - hr).square().mean() < 0.9 * (base - hr).square().mean()


@pytest.mark.parametrize("amp", [False, True])
def test_two_networks_learn_side_by_side_what_slices_with_gaps_lack(amp):
    """By the protocol's thickness: the first removes the aliases of oblique waves, the second sharpens them."""
    thicken = GaussianProfile((1, 1, 3), fwhm=0.6)
    x, y, z = torch.meshgrid(3 * [2 * torch.pi / 4.5 * torch.arange(48.0)], indexing="ij")
    hr = 0.5 + 0.15 * ((x + y).cos() + (y + z).cos() + (x + z).cos())[None, None]
    lr = MetaTensor(thicken(hr), torch.diag(torch.tensor([1.0, 1, 3, 1])), {"SliceThickness": 1.8})
    torch.manual_seed(0)
    given = SelfAntiAliasing(ImageNetwork(EDSR(features=8, blocks=1))).eval()
    inner, fitted = InterpolatedInferer(AntiAliasingInferer(), thicken), FittedProfile(thicken.factors)
    inferer = adapting(DegradeAndInterpolate(fitted), 100, inner=inner, lr_patch=(24, 24))
    result = inferer(lr, apply_precision(given, "cpu", amp, None))
    assert inferer.report["Used"] and inferer.report["ProfileFrom"] == "protocol" and inferer.report["Profile"] == 0.6
    given = interpolate(thicken(hr), thicken)
    aliased, blurred, sharp = (volume[0].movedim(2, 0) for volume in (given, thicken.blur(hr), hr))
    for better, seen, aim in (
        (result, given, hr),
        (inferer.chosen.anti_aliasing(aliased), aliased, blurred),
        (inferer.chosen.super_resolution(blurred), blurred, sharp),
    ):
        assert (better - aim).square().mean() < 0.8 * (seen - aim).square().mean()


def train_from_nothing(hr, true, told, learning_rate):
    """Mean square errors of a WDSR that learns from the scan of a profile by a told one, and of interpolation."""
    torch.manual_seed(0)
    network, lr = WDSR(told, features=8, blocks=1).eval(), true(hr)
    inferer = adapting(told, 100, learning_rate, lr_patch=(24, 10), check_rims=False)
    return [float((result - hr).square().mean()) for result in (inferer(lr, network), PLAIN(lr, network))]


def test_a_network_learns_from_nothing_by_a_factor_that_is_not_whole():
    thicken = GaussianProfile((1, 1, 2.5))
    error, interpolated = train_from_nothing((blobs(texture=0)[..., :70] - 0.4) / 0.4, thicken, thicken, 5e-3)
    assert error < 0.9 * interpolated


def test_gaps_between_slices_are_simulated():
    """A network is worse, even than interpolation, if it takes slices with gaps between them for thicker ones."""
    hr, true = (blobs(texture=0) - 0.4) / 0.4, GaussianProfile((1, 1, FACTOR), fwhm=0.7)
    error, interpolated = train_from_nothing(hr, true, true, 3e-3)
    without_gaps, _ = train_from_nothing(hr, true, GaussianProfile((1, 1, FACTOR), fwhm=1.2), 3e-3)
    assert error < interpolated < without_gaps


def test_worse_weights_are_not_used(network):
    """Nor is a network that has not learned a rival of interpolation, where it has no residual to begin from."""
    lr = THICKEN(blobs())
    assert torch.equal(adapting(iterations=3, learning_rate=10.0)(lr, network), PLAIN(lr, network))
    torch.manual_seed(0)
    network, inner = (
        ImageNetwork(EDSR(features=8, blocks=1, residual=False)).eval(),
        InterpolatedInferer(PLAIN, THICKEN),
    )
    result = adapting(DegradeAndInterpolate(THICKEN), 2, 1e-3, inner, lr_patch=(24, 24))(lr, network)
    torch.testing.assert_close(result, interpolate(lr, THICKEN))


@pytest.mark.parametrize("shape", [(7, 30, 2), (64, 9, 11)])
def test_planes_that_are_smaller_than_a_patch(network, shape):
    result = AdaptedInferer(PLAIN, THICKEN, 2)(torch.rand(1, 1, *shape), network)
    assert result.shape == (1, 1, *shape[:2], FACTOR * shape[2])


def test_refused(network):
    for name, values, *words in (
        ("batch_size", [0]),
        ("lr_patch", [[48], [0, 64]]),
        ("iterations", [-1, 1.5, True], "adapt_iterations", "whole number"),
        ("scales", [[1.5, 1.0], [0.0], []], "above 0", "at most 1"),
    ):
        for wrong in ({name: value} for value in values):
            refused(lambda wrong=wrong: AdaptedInferer(PLAIN, THICKEN, **wrong), ValueError, name, wrong[name], *words)
    lr = torch.rand(1, 1, 12, 12, 4)
    without_weights = torch.nn.Upsample(scale_factor=(1, FACTOR))
    for each in (without_weights, apply_precision(without_weights, "cpu", True, None)):
        assert torch.equal(AdaptedInferer(PLAIN, THICKEN, 2)(lr, each), PLAIN(lr, each))
        assert torch.equal(AdaptedInferer(PLAIN, THICKEN)(lr, each), PLAIN(lr, each))


def test_a_training_that_was_measured_is_not_measured_again(network, monkeypatch, capsys):
    inferer = AdaptedInferer(PLAIN, THICKEN, 1)
    inferer.measured = (70.0, 70.0), 1.0
    monkeypatch.setattr(inferer, "measure_training", None)
    inferer(torch.rand(1, 1, 48, 48, 12), network)
    assert "training on the scan will take about 70 s" in capsys.readouterr().out
