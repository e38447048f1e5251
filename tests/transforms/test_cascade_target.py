"""What a stage is trained on: image and guide of one scene on one grid, of sizes that its validation comes back to."""

import math

import pytest
import torch
from monai.data import MetaTensor

from common.degradations import GaussianProfile
from common.inferers import CascadeInferer
from common.networks import Cascade, GuidedRDN
from common.transforms import StageTargetd


def cascade_of(count, guided=True):
    """Of networks that leave the interpolation as it is."""
    return Cascade([GuidedRDN(guided, 2, 1, 1) for _ in range(count)], 2)


def inferer_of(scale, count):
    return CascadeInferer(scale ** (1 / count), count)


def degradation_of(scale, count):
    return GaussianProfile((scale ** (1 / count), scale ** (1 / count), 1), fwhm=2**-0.5)


def target_of(scale, count, stage, lr, guide=None, network=None):
    first = StageTargetd("lr", inferer_of(scale, count), cascade_of(count), degradation_of(scale, count), "cpu")
    transform = first
    if stage > 1:
        transform.select_stage(stage, network or cascade_of(count))
    return transform({"lr": lr} if guide is None else {"lr": lr, "guide": guide})


def test_the_first_stage_has_the_scan_itself_as_hr():
    lr, guide = torch.rand(1, 13, 10, 3), torch.rand(1, 26, 20, 3)
    found = target_of(2, 3, 1, lr, guide)
    # 10 voxels make 12.6, 7 make 8.8: at the far edge less than a voxel is cut off.
    assert found.keys() == {"lr", "hr", "guide"} and torch.equal(found["hr"], lr[:, :13, :9])
    assert found["lr"].shape == (1, 10, 7, 3) and torch.equal(found["lr"], degradation_of(2, 3)(found["hr"]))
    assert torch.allclose(found["guide"], GaussianProfile((2, 2, 1))(guide)[:, :13, :9], atol=1e-6)


def scene(factor):
    """So smooth that no profile changes it, on a grid of voxels that are smaller by a factor."""
    x, y = ((torch.arange(factor * n) - (factor - 1) / 2) / factor for n in (21, 23))
    return (torch.cos(x / 6)[:, None, None] + torch.sin(y / 7)[None, :, None] + torch.arange(2))[None]


@pytest.mark.parametrize("scale, count, before", [(s, r, k) for s in (2, 3) for r in (1, 2, 3) for k in range(r)])
def test_later_stages_have_what_those_before_make_of_the_scan(scale, count, before):
    """A scene is the same in target and guide, voxel by voxel, and validation comes back to the target's size."""
    found = target_of(scale, count, before + 1, scene(1), scene(scale))
    inner = slice(6, -6)
    assert (found["hr"] - found["guide"])[:, inner, inner].abs().max() < 0.01
    # Half a voxel is more than that.
    assert (found["hr"][:, 1:] - found["guide"][:, :-1])[:, inner, inner].abs().max() > 0.04
    factor, network = scale ** (1 / count), cascade_of(count)
    validation = inferer_of(scale, count).select_stage(before + 1)
    for n in range(8, 20):
        lr, guide = torch.rand(1, n, 27 - n, 1), torch.rand(1, scale * n, scale * (27 - n), 1)
        found = target_of(scale, count, before + 1, lr, guide, network)
        with torch.no_grad():
            sr = validation(found["lr"][None], network, found["guide"][None])[0]
        assert sr.shape == found["hr"].shape == found["guide"].shape
        for size, hr_size in zip((n, 27 - n), found["hr"].shape[1:3], strict=True):
            whole = math.floor(size * scale ** (before / count) + 0.5)
            assert whole - factor - 0.5 < hr_size <= whole


def test_the_stages_before_are_applied_as_trained_and_not_trained_further():
    lr, guide, network = torch.rand(1, 9, 8, 2), torch.rand(1, 18, 16, 2), cascade_of(2)
    for stage in network.stages:
        torch.nn.init.normal_(stage.tail.weight)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found = target_of(2, 2, 2, lr, guide, network.train())
    assert not any(found[key].requires_grad for key in found)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected = inferer_of(2, 2).select_earlier_stages(2)(lr[None], network.eval(), guide[None])[0]
    assert torch.equal(found["hr"], expected[:, : found["hr"].shape[1], : found["hr"].shape[2]])
    assert (found["hr"] - target_of(2, 2, 2, lr, guide)["hr"]).abs().max() > 0.01
    # Without a guide, and without meta data.
    assert target_of(2, 2, 2, lr, network=cascade_of(2, guided=False)).keys() == {"lr", "hr"}
    for stage in (1, 2):
        plain, found = (target_of(2, 2, stage, kind(lr), kind(guide)) for kind in (torch.Tensor, MetaTensor))
        assert {type(value) for value in found.values()} == {torch.Tensor}
        assert all(torch.equal(found[key], plain[key]) for key in plain)
