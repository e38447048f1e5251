"""Back projection, and a cascade whose stages put image and guide where they belong on every grid."""

import itertools
import math
import re

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer

from common.degradations import GaussianProfile
from common.inferers import CascadeInferer
from common.inferers.cascade import back_project
from common.metrics import cubic
from common.networks import Cascade, GuidedRDN

every_scale = pytest.mark.parametrize(("scale", "count"), [*itertools.product((2, 3, 4), (1, 2, 3))])


class Recorder:
    """A cascade that takes the interpolation as it is, and keeps what it was given."""

    def __init__(self):
        self.images, self.stages = [], []

    def __call__(self, image, stage):
        self.images.append(image)
        self.stages.append(stage)
        return image[:, :1]


def inferer_of(scale, count, slices=None, **options):
    options = {"stages": range(1, count + 1), "guide_factor": scale} | options
    return CascadeInferer(slices or SimpleInferer(), scale ** (1 / count), **options)


# Periods of a scene in LR voxels along x and y, and how far it is from one slice to the next.
PERIODS, STEP = (9.0, 11.0), 0.7


def scene(factor, lr_size, blur=0.0, phase=0.0):
    """Waves, sampled on the grid that is ``factor`` times as fine as LR voxels at 0, 1, 2, ... from their low edge on.

    Args:
        blur: standard deviation of a Gaussian that they are blurred with in plane, in LR voxels.
        phase: added to their phase.
    """
    waves = []
    for n, period in zip(lr_size, PERIODS, strict=False):
        position = (torch.arange(math.floor(n * factor + 0.5), dtype=torch.float64) - (factor - 1) / 2) / factor
        gain = math.exp(-2 * (math.pi * blur / period) ** 2)
        waves.append((2 * math.pi * position / period + phase, gain))
    (x, x_gain), (y, y_gain) = waves
    z = STEP * torch.arange(lr_size[2])
    volume = x_gain * torch.cos(x[:, None, None] + z) + y_gain * torch.sin(y[None, :, None] - z)
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

    def misses(estimate, iterations):
        return (lr - degradation(back_project(estimate, lr, degradation, iterations))).norm().item()

    for estimate in (torch.rand_like(hr), cubic(lr, factors, degradation.offset)):
        assert torch.equal(back_project(estimate, lr, degradation, 0), estimate)
        left = [misses(estimate, n) for n in range(6)]
        assert all(after < before for before, after in itertools.pairwise(left)) and left[5] < 0.25 * left[0]
        # The first iteration is a step down the gradient, which autograd knows without an adjoint.
        leaf = estimate.clone().requires_grad_()
        (0.5 * (lr - degradation(leaf)).square().sum()).backward()
        expected = estimate - factors[0] * factors[1] * leaf.grad
        assert torch.allclose(back_project(estimate, lr, degradation, 1), expected, atol=1e-12)
    assert torch.allclose(back_project(hr, lr, degradation, 3), hr, atol=1e-12)
    # Of a constant error the scan sees next to nothing after one iteration.
    assert (degradation(back_project(hr + 3, lr, degradation, 1)) - lr).abs().max() < 0.02 * 3


@pytest.mark.parametrize("scale", [2, 3])
def test_one_stage_interpolates_as_the_baseline(scale):
    lr, network = torch.rand(2, 1, 6, 7, 3), Recorder()
    expected = cubic(lr, (scale, scale, 1), GaussianProfile((scale, scale, 1)).offset)
    result = inferer_of(scale, 1)(lr, network)
    assert torch.allclose(result, expected, atol=1e-6)
    assert network.stages == [0] and network.images[0].shape[1] == 1


@every_scale
def test_every_stage_has_image_and_guide_where_they_belong(scale, count):
    size, network = (17, 19, 2), Recorder()
    lr, guide = scene(1, size), scene(scale, size, phase=1.0)
    result = inferer_of(scale, count)(lr, network, guide)
    assert network.stages == list(range(count))
    for done, image in enumerate([*network.images, result], start=1):
        factor = scale ** (min(done, count) / count)
        expected = scene(factor, size)
        assert error_inside(image[:, :1], expected, factor) < 0.02
        # Half a voxel to the side, as on grids that share the centres of their first voxels, it would be far off.
        shift = math.pi / (factor * PERIODS[1])
        assert error_inside(image[:, :1], scene(factor, size, phase=shift), factor) > 0.05
        if done <= count:
            # As wide as the stage's voxels, and on the grid of the last stage as it is.
            blur = 1 / factor / (2 * math.sqrt(2 * math.log(2))) if done < count else 0.0
            assert error_inside(image[:, 1:], scene(factor, size, blur, phase=1.0), factor) < 2e-3
    assert torch.allclose(network.images[-1][:, 1:], guide, atol=1e-6)


@every_scale
def test_sizes_that_no_stage_divides_come_out_whole(scale, count):
    for n in range(3, 13):
        hr_size, network = (scale * n, scale * (n + 10), 1), Recorder()
        result = inferer_of(scale, count)(torch.rand(1, 1, n, n + 10, 1), network, torch.rand(1, 1, *hr_size))
        assert result.shape == (1, 1, *hr_size)
        sizes = [math.floor(n * scale ** (t / count) + 0.5) for t in range(1, count + 1)]
        assert [image.shape[2] for image in network.images] == sizes


def test_a_stage_may_run_alone_or_none_at_all():
    size, factor, network = (15, 16, 2), 2 ** (1 / 3), Recorder()
    result = inferer_of(2, 3, stages=[2], guide_factor=factor)(scene(1, size), network, scene(factor, size, phase=1.0))
    assert network.stages == [1] and error_inside(result, scene(factor, size), factor) < 0.02
    assert torch.equal(network.images[0][:, 1:], scene(factor, size, phase=1.0))
    assert torch.equal(inferer_of(2, 3, stages=[])(scene(1, size), network), scene(1, size))
    assert network.stages == [1]


def test_the_result_is_projected_back_onto_the_scan():
    lr, degradation = torch.rand(1, 1, 8, 9, 2), GaussianProfile((2, 2, 1))
    once = inferer_of(2, 2)(lr, Recorder())
    for iterations in (1, 2):
        result = inferer_of(2, 2, degradation=degradation, iterations=iterations)(lr, Recorder())
        assert torch.allclose(result, back_project(once, lr, degradation, iterations), atol=1e-6)
    with pytest.raises(ValueError, match="needs the degradation"):
        inferer_of(2, 2, iterations=1)


def cascade_of():
    torch.manual_seed(0)
    cascade = Cascade([GuidedRDN(True, 3, 2, 1) for _ in range(2)], 2)
    for network in cascade.stages:
        torch.nn.init.normal_(network.tail.weight, std=0.3)
    return cascade.eval()


def test_batches_of_slices_leave_no_trace():
    lr, guide, cascade = torch.rand(2, 1, 6, 7, 6), torch.rand(2, 1, 12, 14, 6), cascade_of()
    some = SlidingWindowInferer(roi_size=[-1, -1, 4], overlap=0)
    with torch.no_grad():
        expected = inferer_of(2, 2)(lr, cascade, guide)
        assert torch.allclose(inferer_of(2, 2, some)(lr, cascade, guide), expected, atol=1e-5)
        for z in (slice(0, 1), slice(3, 6)):
            part = inferer_of(2, 2, some)(lr[..., z], cascade, guide[..., z])
            assert torch.allclose(part, expected[..., z], atol=1e-5)
    assert (expected - inferer_of(2, 2)(lr, Recorder())).abs().max() > 0.1


def test_meta_data_stays_outside():
    lr, guide, network = torch.rand(1, 1, 6, 7, 2), torch.rand(1, 1, 12, 14, 2), Recorder()
    inferer = inferer_of(2, 2, degradation=GaussianProfile((2, 2, 1)), iterations=1)
    result = inferer(MetaTensor(lr, meta={"filename_or_obj": "x"}), network, MetaTensor(guide))
    assert {type(image) for image in [result, *network.images]} == {torch.Tensor}
    assert torch.equal(result, inferer(lr, network, guide))


def test_amp_computes_networks_in_bf16_and_all_else_in_float32():
    lr, guide, cascade, seen = torch.rand(1, 1, 6, 7, 2), torch.rand(1, 1, 12, 14, 2), cascade_of(), []
    cascade.stages[1].head[0][0].register_forward_hook(lambda _, inputs, y: seen.append((inputs[0].dtype, y.dtype)))
    options = {"degradation": GaussianProfile((2, 2, 1)), "iterations": 1}
    with torch.no_grad():
        full = inferer_of(2, 2, **options)(lr, cascade, guide)
        half = inferer_of(2, 2, amp=True, amp_kwargs={"dtype": torch.bfloat16}, **options)(lr, cascade, guide)
    assert seen == [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)]
    assert half.dtype == torch.float32 and torch.allclose(half, full, atol=0.05) and not torch.equal(half, full)
    # Also where a network's result is not.
    assert inferer_of(2, 1)(lr, lambda image, stage: image[:, :1].bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("size", [(13, 14, 2), (12, 14, 3), (6, 7, 2)], ids=str)
def test_a_guide_of_another_size_is_refused(size):
    said = rf"has {re.escape(str(size))} voxels, expected \(12, 14, 2\): 2 times.*ResampleGuided"
    with pytest.raises(ValueError, match=said):
        inferer_of(2, 3)(torch.rand(1, 1, 6, 7, 2), Recorder(), torch.rand(1, 1, *size))
