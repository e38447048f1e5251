"""Back projection, and a cascade whose stages put image and guide where they belong on every grid."""

import itertools
import math

import pytest
import torch
from monai.data import MetaTensor

from common.degradations import GaussianProfile
from common.inferers import CascadeInferer
from common.inferers.cascade import back_project
from common.metrics import interpolate_cubic
from common.networks import Cascade, GuidedRDN
from tests.refused import refused

TWICE = GaussianProfile((2, 2, 1))
LR, GUIDE = (torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0)) for size in ((6, 7, 6), (12, 14, 6)))


class Recorder:
    """A cascade that takes the interpolation as it is, and keeps what it was given, the slices of a stage together."""

    def __init__(self):
        self.images, self.stages = [], []

    def __call__(self, image, stage):
        if self.stages[-1:] == [stage] and self.images[-1].shape[:4] == image.shape[:4]:
            self.images[-1] = torch.cat([self.images[-1], image], dim=-1)
        else:
            self.images.append(image)
            self.stages.append(stage)
        return image[:, :1]


def inferer_of(scale, count, **options):
    return CascadeInferer(scale ** (1 / count), **{"stages": count} | options)


# Periods of a scene in LR voxels along x and y, and how far it is from one slice to the next.
PERIODS, STEP = (9.0, 11.0), 0.7


def scene(factor, lr_size, blur=0.0, phase=0.0):
    """Waves, blurred by a Gaussian in LR voxels, on a grid as many times as fine that shares their low edge."""
    indices = (torch.arange(math.floor(n * factor + 0.5), dtype=torch.float64) for n in lr_size[:2])
    places = ((index - (factor - 1) / 2) / factor for index in indices)
    x, y = (2 * math.pi * place / period + phase for place, period in zip(places, PERIODS, strict=True))
    gains, z = [math.exp(-2 * (math.pi * blur / period) ** 2) for period in PERIODS], STEP * torch.arange(lr_size[2])
    volume = gains[0] * torch.cos(x[:, None, None] + z) + gains[1] * torch.sin(y[None, :, None] - z)
    return volume[None, None].float()


def error_inside(volume, expected, factor):
    """The largest difference at least 5 LR voxels from the border of the plane."""
    assert volume.shape == expected.shape
    edge = math.ceil(5 * factor)
    return (volume - expected)[:, :, edge:-edge, edge:-edge].abs().max().item()


@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 4, 1)], ids=str)
def test_back_projection_brings_the_estimate_to_the_scan(factors):
    degradation = GaussianProfile(factors)
    hr = torch.rand(2, 1, 16, 24, 2, dtype=torch.float64)
    lr = degradation(hr)
    for estimate in (torch.rand_like(hr), interpolate_cubic(lr, factors, degradation.offset)):
        projected = [back_project(estimate, lr, degradation, n) for n in range(6)]
        assert torch.equal(projected[0], estimate)
        left = [(lr - degradation(each)).norm().item() for each in projected]
        assert all(after < before for before, after in itertools.pairwise(left)) and left[5] < 0.25 * left[0]
        # The first iteration is a step down the gradient, which autograd knows without an adjoint.
        leaf = estimate.clone().requires_grad_()
        (0.5 * (lr - degradation(leaf)).square().sum()).backward()
        assert torch.allclose(projected[1], estimate - factors[0] * factors[1] * leaf.grad, atol=1e-12)
    assert torch.allclose(back_project(hr, lr, degradation, 3), hr, atol=1e-12)
    # Of a constant error the scan sees next to nothing after one iteration.
    assert (degradation(back_project(hr + 3, lr, degradation, 1)) - lr).abs().max() < 0.02 * 3


@pytest.mark.parametrize(("scale", "count"), [(2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (4, 2), (4, 3)])
def test_every_stage_has_image_and_guide_where_they_belong_whatever_the_size(scale, count):
    size, network = (17, 19, 2), Recorder()
    guide = scene(scale, size, phase=1.0)
    result = inferer_of(scale, count)(scene(1, size), network, guide)
    assert network.stages == list(range(count))
    for done, image in enumerate([*network.images, result], start=1):
        factor = scale ** (min(done, count) / count)
        assert error_inside(image[:, :1], scene(factor, size), factor) < 0.02
        # Half a voxel to the side, as on grids that share the centres of their first voxels, it would be far off.
        shift = math.pi / (factor * PERIODS[1])
        assert error_inside(image[:, :1], scene(factor, size, phase=shift), factor) > 0.05
        if done <= count:
            # As wide as the stage's voxels, and on the grid of the last stage as it is.
            blur = 1 / factor / (2 * math.sqrt(2 * math.log(2))) if done < count else 0.0
            assert error_inside(image[:, 1:], scene(factor, size, blur, phase=1.0), factor) < 2e-3
    assert torch.allclose(network.images[-1][:, 1:], guide, atol=1e-6)
    if count == 1:
        alone = inferer_of(scale, 1)(guide, network)
        assert torch.allclose(
            alone, interpolate_cubic(guide, (scale, scale, 1), [(scale - 1) / 2] * 2 + [0]), atol=1e-5
        )
        assert network.images[-1].shape[1] == 1
    for n in range(3, 13):  # also where no stage divides it
        hr_size, network = (scale * n, scale * (n + 10), 1), Recorder()
        result = inferer_of(scale, count)(torch.rand(1, 1, n, n + 10, 1), network, torch.rand(1, 1, *hr_size))
        assert result.shape == (1, 1, *hr_size)
        sizes = [math.floor(n * scale ** (t / count) + 0.5) for t in range(1, count + 1)]
        assert [image.shape[2] for image in network.images] == sizes


def test_a_stage_may_run_alone_or_none_at_all():
    size, factor, network = (15, 16, 2), 2 ** (1 / 3), Recorder()
    guide = scene(factor, size, phase=1.0)
    whole = inferer_of(2, 3, degradation=TWICE, iterations=1)
    result = whole.select_stage(2)(scene(1, size), network, guide)
    assert network.stages == [1] and error_inside(result, scene(factor, size), factor) < 0.02
    assert torch.equal(network.images[0][:, 1:], guide)
    assert torch.equal(whole.select_earlier_stages(1)(scene(1, size), network), scene(1, size))
    assert network.stages == [1]
    result = whole.select_earlier_stages(3)(scene(1, size), network, scene(2, size, phase=1.0))
    assert network.stages == [1, 0, 1] and error_inside(result, scene(factor**2, size), factor**2) < 0.02


def test_the_result_is_projected_back_onto_the_scan_without_its_meta_data():
    once = inferer_of(2, 2)(LR, Recorder(), GUIDE)
    for iterations in (1, 2):
        inferer, network = inferer_of(2, 2, degradation=TWICE, iterations=iterations), Recorder()
        result = inferer(MetaTensor(LR, meta={"filename_or_obj": "x"}), network, MetaTensor(GUIDE))
        assert {type(image) for image in [result, *network.images]} == {torch.Tensor}
        assert torch.allclose(result, back_project(once, LR, TWICE, iterations), atol=1e-6)
        assert torch.equal(result, inferer(LR, network, GUIDE))


@pytest.fixture
def cascade():
    cascade = Cascade([GuidedRDN(True, 3, 2, 1) for _ in range(2)], 2).requires_grad_(False)
    for network in cascade.stages:
        torch.nn.init.normal_(network.tail.weight, std=0.3)
    return cascade.eval()


def test_batches_of_slices_leave_no_trace(cascade, monkeypatch):
    one_by_one = inferer_of(2, 2)(LR, cascade, GUIDE)
    assert (one_by_one - inferer_of(2, 2)(LR, Recorder())).abs().max() > 0.1
    whole = lambda network, pieces, stage: [network(torch.cat(pieces, dim=-1), stage)]  # noqa: E731
    monkeypatch.setattr("common.inferers.cascade.run_in_pieces", whole)
    for z in (slice(None), slice(0, 1), slice(3, 6)):
        assert torch.allclose(inferer_of(2, 2)(LR[..., z], cascade, GUIDE[..., z]), one_by_one[..., z], atol=1e-5)


def test_what_a_network_gives_in_bf16_is_float32_again():
    assert inferer_of(2, 1)(LR, lambda image, stage: image[:, :1].bfloat16()).dtype == torch.float32


def test_refused():
    refused(lambda: inferer_of(2, 2, iterations=1), ValueError, "needs the degradation")
    for size in ((13, 14, 6), (12, 14, 7), (6, 7, 6)):
        guide, words = torch.rand(2, 1, *size), [size, "(12, 14, 6)", "2 times", "ResampleGuided"]
        refused(lambda guide=guide: inferer_of(2, 3)(LR, Recorder(), guide), ValueError, *words)
