"""Training on the scan itself: it helps where the scan has something to teach, and never leaves worse weights."""

import copy

import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.degradations import FittedProfile, GaussianProfile, Interpolated, interpolated
from common.inferers import AdaptedInferer, InterpolatedInferer, OrthogonalInferer
from common.networks import EDSR, RDN, AsImages, AxisInterpolation

FACTOR = 3
THICKEN = GaussianProfile((1, 1, FACTOR))


def network_of():
    torch.manual_seed(0)
    base = AxisInterpolation(factor=FACTOR, offset=THICKEN.offset[2])
    return RDN(features=8, growth=8, blocks=1, layers=2, factor=FACTOR, base=base).eval().requires_grad_(False)


def blobs(texture=0.05):
    """Two textured tissues with sharp edges in all directions, isotropic."""
    noise = (torch.randn(48, 48, 72, generator=torch.Generator().manual_seed(seed)).numpy() for seed in (0, 1))
    edges, field = (torch.from_numpy(ndimage.gaussian_filter(n, s)) for n, s in zip(noise, (2.5, 1.0), strict=True))
    return (0.4 + 0.4 * (edges > 0) + texture * field / field.std())[None, None].float()


@torch.no_grad()
def test_a_scan_teaches_what_its_slices_lack(capsys):
    hr, network = blobs(), network_of()
    lr = THICKEN(hr)
    given = copy.deepcopy(network.state_dict())
    inferer = AdaptedInferer(OrthogonalInferer(), THICKEN, 80, 4, (24, 8), 5e-3)
    plain, adapted = OrthogonalInferer()(lr, network), inferer(lr, network)
    error, better = ((result - hr).square().mean() for result in (plain, adapted))
    assert better < 0.9 * error
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    assert torch.equal(adapted, inferer(lr, network)), "the same scan gives the same result"
    another = AdaptedInferer(OrthogonalInferer(), THICKEN, 80, 4, (24, 8), 5e-3, seed=1)(lr, network)
    assert not torch.equal(adapted, another), "and other patches another"
    before, after = (float(word) for word in capsys.readouterr().out.split("from ")[1].split(" dB")[0].split(" to "))
    assert after > before


@torch.no_grad()
def test_slices_that_overlap(capsys):
    """What was trained at the scan's own profile, which nobody says, makes them thin better."""
    hr = blobs()
    lr = GaussianProfile((1, 1, FACTOR), fwhm=1.3)(hr)
    errors = []
    for degradation in (THICKEN, FittedProfile(THICKEN.factors)):
        inferer = AdaptedInferer(OrthogonalInferer(), degradation, 80, 4, (24, 8), 5e-3)
        errors.append((inferer(lr, network_of()) - hr).square().mean())
    assert errors[1] < 0.95 * errors[0]
    assert inferer.said["Used"] and inferer.said["Profile"] == pytest.approx(1.2, abs=0.1)
    told = f"slices are {inferer.said['Profile']:.2f} times as thick as they are apart, as the scan shows"
    assert inferer.said["ProfileFrom"] == "scan" and told in capsys.readouterr().out
    for thickness, source in ((3.9, "protocol"), (0.39, "scan"), (39, "scan")):  # of slices 3 mm apart
        inferer(MetaTensor(lr, torch.diag(torch.tensor([1.0, 1, 3, 1])), {"SliceThickness": thickness}), network_of())
        assert inferer.said["ProfileFrom"] == source and inferer.said["ProfileTold"] == pytest.approx(thickness / 3)
        assert ("not believed" in capsys.readouterr().out) == (source == "scan")
    inferer(lr[..., :6], network_of())
    assert inferer.said["Profile"] == 1 and inferer.said["ProfileFrom"] == "assumed"
    assert "ProfileTold" not in inferer.said
    assert "slices are 1.00 times as thick as they are apart, assumed" in capsys.readouterr().out


@torch.no_grad()
@pytest.mark.parametrize(("true", "told", "used"), [(0.4, 1.5, False), (1.0, 1.0, True), (1.3, 1.2, True)])
def test_rims_that_no_slice_has_are_not_taken(true, told, used, capsys):
    """Thin slices that are taken for thick ones gain on the planes all the same; the weights stay as they were."""
    hr, network = blobs(), network_of()
    lr = GaussianProfile((1, 1, FACTOR), fwhm=true)(hr)
    inferer = AdaptedInferer(OrthogonalInferer(), GaussianProfile((1, 1, FACTOR), fwhm=told), 80, 4, (24, 8), 5e-3)
    result = inferer(lr, network)
    said = inferer.said
    assert said["Used"] == used and said["PsnrAdapted"] > said["Psnr"] + 1
    assert (said["Overshoot"] > 2 * said["OvershootInPlane"]) != used
    assert torch.equal(result, OrthogonalInferer()(lr, network)) != used
    assert ("brighter than all slices around it" in capsys.readouterr().out) != used


@torch.no_grad()
def test_what_one_slice_alone_has_is_not_sharpened():
    """With gains much less than without them, though nothing held out tells."""
    lr, network = THICKEN(blobs()), network_of()
    gains = (0.05 * torch.randn(lr.shape[4], generator=torch.Generator().manual_seed(2))).exp()

    def spread(inferer):
        means = (inferer(images, network).mean(dim=(0, 1, 2, 3)) for images in (lr * gains, lr))
        return torch.div(*means).log()[9:-9].std()

    adapted = (AdaptedInferer(OrthogonalInferer(), THICKEN, 200, 4, (24, 8), 5e-3, gains=g) for g in (0.15, 0.0))
    interpolated, with_gains, without = map(spread, (OrthogonalInferer(), *adapted))
    assert with_gains < 1.25 * interpolated and without > 1.45 * interpolated


@torch.no_grad()
def test_a_network_that_begins_where_interpolation_ends(capsys):
    """Trained from nothing on interpolated planes, at a factor that is not whole, it beats the interpolation."""
    thicken = GaussianProfile((1, 1, 2.5))
    torch.manual_seed(0)
    network = AsImages(EDSR(features=8, blocks=1, factor=1, base=torch.nn.Identity())).eval()
    hr = (blobs(texture=0)[..., :70] - 0.4) / 0.4
    lr = thicken(hr)
    base = interpolated(lr, thicken)
    inner = InterpolatedInferer(OrthogonalInferer(), thicken)
    torch.testing.assert_close(inner(lr, network), base)
    adapted = AdaptedInferer(inner, Interpolated(thicken), 80, 4, (24, 24), 5e-3)(lr, network)
    assert adapted.shape == hr.shape
    assert (adapted - hr).square().mean() < 0.9 * (base - hr).square().mean()
    assert "training on the scan: about" in capsys.readouterr().out


@torch.no_grad()
def test_worse_weights_are_not_used(capsys):
    lr, network = THICKEN(blobs()), network_of()
    result = AdaptedInferer(OrthogonalInferer(), THICKEN, 3, 4, (24, 8), 10.0)(lr, network)
    assert torch.equal(result, OrthogonalInferer()(lr, network))
    assert "the weights stay as they were" in capsys.readouterr().out


@torch.no_grad()
def test_a_network_that_has_not_learned_is_no_rival_of_interpolation(capsys):
    """Without a residual it begins from noise; where the scan does not teach it enough, interpolation stays."""
    torch.manual_seed(0)
    network = AsImages(EDSR(features=8, blocks=1, factor=1)).eval()
    lr, inner = THICKEN(blobs()), InterpolatedInferer(OrthogonalInferer(), THICKEN)
    result = AdaptedInferer(inner, Interpolated(THICKEN), 2, 4, (24, 24), 1e-3)(lr, network)
    torch.testing.assert_close(result, interpolated(lr, THICKEN))
    assert "so the scan is interpolated" in capsys.readouterr().out


@torch.no_grad()
@pytest.mark.parametrize("shape", [(7, 30, 2), (64, 9, 11)])
def test_planes_that_are_smaller_than_a_patch(shape):
    lr, network = torch.rand(1, 1, *shape), network_of()
    result = AdaptedInferer(OrthogonalInferer(), THICKEN, 2)(lr, network)
    assert result.shape == (1, 1, *shape[:2], FACTOR * shape[2])


@torch.no_grad()
def test_what_cannot_be_trained_is_refused():
    lr, network = torch.rand(1, 1, 12, 12, 4), network_of()
    for wrong in ({"batch_size": 0}, {"lr_patch": [48]}, {"lr_patch": [0, 64]}):
        with pytest.raises(ValueError, match=r"batch_size is .* and lr_patch .*, expected a number of patches and two"):
            AdaptedInferer(OrthogonalInferer(), THICKEN, 2, **wrong)
    scripted = torch.jit.trace(network, lr[:, :, 0])
    with pytest.raises(TypeError, match=r"2 iterations .* but a .* cannot be trained.*model\.pt"):
        AdaptedInferer(OrthogonalInferer(), THICKEN, 2)(lr, scripted)
    with pytest.raises(TypeError, match="a Upsample cannot be trained"):  # has no weights, as an OnnxNetwork
        AdaptedInferer(OrthogonalInferer(), THICKEN, 2)(lr, torch.nn.Upsample(scale_factor=(1, FACTOR)))
    assert torch.equal(AdaptedInferer(OrthogonalInferer(), THICKEN)(lr, scripted), OrthogonalInferer()(lr, network))
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="expected a whole number, 0 or more"):
            AdaptedInferer(OrthogonalInferer(), THICKEN, wrong)
    for wrong in ([1.5, 1.0], [0.0], []):
        with pytest.raises(ValueError, match="sizes above 0 and of at most 1"):
            AdaptedInferer(OrthogonalInferer(), THICKEN, 2, scales=wrong)
