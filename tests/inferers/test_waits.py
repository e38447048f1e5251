"""Inferers on a simulated GPU: what the host waits for does not grow with a volume, nor with iterations over it."""

import numpy as np
import torch
from torch import nn

from common.degradations import FittedProfile, GaussianProfile, KSpaceTruncation
from common.inferers import (
    AdaptedInferer,
    AxesInferer,
    CascadeInferer,
    CheckedInferer,
    ConsistentInferer,
    OrthogonalInferer,
    SlabInferer,
    SliceInsertionInferer,
    TotalVariationInferer,
    ZeroShotInferer,
)
from common.runtime.precision import apply_precision
from common.stacks.least_squares import enforce_data_consistency
from common.stacks.operator import StackOperator
from tests.simulated_cuda import Run

CUBES, THICK, PLANES = KSpaceTruncation((2, 2, 2)), GaussianProfile((1, 1, 3)), GaussianProfile((2, 2, 1))
LAYERS = 12


def slabs():
    inferer = SlabInferer(CUBES, slices=3)
    inferer.tile, inferer.halo = 20, 4
    return inferer


def forms(iterations):
    """Of each inferer the most waits for a volume, and a function of the volume."""
    double, same = nn.Upsample(scale_factor=2), nn.Identity()
    axes = AxesInferer(slabs(), mirrored=True)
    yield "data consistency", 0, lambda v: ConsistentInferer(axes, CUBES, iterations)(v, double)
    yield "check", 4, lambda v: CheckedInferer(slabs(), [CUBES], 1.0)(v, double)
    cascade = CascadeInferer(2, 1, degradation=PLANES, iterations=iterations)
    yield "cascade", 0, lambda v: cascade(v, lambda image, stage: image)
    yield "directions", 0, lambda v: OrthogonalInferer(power=4.0)(v, nn.Upsample(scale_factor=(1, 3)))
    yield "between", 1, lambda v: SliceInsertionInferer(GaussianProfile((1, 1, 2)))(v, lambda pair: pair[:, :1])
    yield "images", 0, lambda v: ZeroShotInferer(THICK, iterations=iterations)(v, same)
    yield "variation", 2, lambda v: TotalVariationInferer(PLANES, iterations=iterations)(v, same)
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(scale_factor=(1, 3))).cuda()
    for profile, most in ((THICK, 20), (FittedProfile((1, 1, 3)), 300)):
        adapted = AdaptedInferer(OrthogonalInferer(), profile, iterations, 2, (8, 4), gains=0.1)
        yield type(profile).__name__, most, lambda v, adapted=adapted: adapted(v, network)
    yield "stacks", 0, lambda v: in_stacks(v[0, 0], iterations)
    for amp in (False, True):
        layers = nn.Sequential(*[nn.Conv3d(1, 1, 1) for _ in range(LAYERS)], double).cuda()
        layers = apply_precision(layers, torch.device("cuda"), amp, None)
        yield f"amp {amp}", 0, lambda v, network=layers: slabs()(v, network)


def in_stacks(volume, iterations):
    """A volume that agrees with two stacks, of which the second is turned."""
    x, y, z = volume.shape
    stack, turned = torch.ones(x, y, z // 3, device=volume.device), np.diag([1.0, 1.0, 3.0, 1.0])
    turned[0, 2] = 0.5
    places = np.diag([1.0, 1.0, 3.0, 1.0]), turned
    operators = [StackOperator((x, y, z), np.eye(4), stack.shape, place, device=volume.device) for place in places]
    return enforce_data_consistency(volume, [stack] * 2, operators, [1e-3] * 2, iterations=iterations)


@torch.no_grad()
def compare_sizes(device):
    def phases(slices, iterations):
        found = {}
        for name, most, infer in forms(iterations):
            volume = torch.rand(1, 1, 24, 20, slices).cuda()
            device.begin()
            infer(volume)
            device.end(name)
            found[name] = phase = device.phases[name][-1]
            assert sum(phase.waits.values()) <= most, (name, phase.summary())
        return found

    few, many = phases(12, 2), phases(70, 8)
    for name, phase in many.items():
        assert phase.waits == few[name].waits, (name, few[name].summary(), phase.summary())
    # Two tiles, and one or three pieces of each. Under autocast a piece is cast, and its result, but no weight again.
    added = {amp: many[f"amp {amp}"].operators - few[f"amp {amp}"].operators for amp in (False, True)}
    assert added[True] - added[False] == 2 * 2 * 2, added


def test_waits_are_few_for_any_number_of_slices_and_iterations_and_weights_are_cast_once(tmp_path):
    Run(tmp_path / "log", f"{__name__}:compare_sizes").finish()
