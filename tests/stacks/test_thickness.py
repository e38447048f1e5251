import numpy as np
import pytest
import torch

from common.geometry.registration.stacks import average_like
from common.geometry.stack import Stack
from common.stacks import estimate_thickness

from .phantom import Phantom, grid


@pytest.mark.parametrize("thickness", [0.7, 1.4])
def test_found_again(thickness):
    """By a volume of another brightness, coarse along another axis, with noise."""
    (shape, affine), (thick, thick_affine), phantom = grid(0, thick=2), grid(2, (10, -5, 8)), Phantom(8)
    rng = np.random.default_rng(0)
    volume = 2 * phantom.stack(shape, affine) + 0.02 * rng.normal(size=shape)
    stack = phantom.stack(thick, thick_affine, thickness=thickness) + 0.02 * rng.normal(size=thick)
    assert estimate_thickness(volume, affine, stack, thick_affine) == pytest.approx(thickness, abs=0.1)


def test_nothing_in_common():
    (shape, affine), (thick, thick_affine), phantom = grid(0), grid(2), Phantom(8)
    far = affine.copy()
    far[:3, 3] += 500
    stacks = phantom.stack(shape, affine), phantom.stack(thick, thick_affine)
    assert estimate_thickness(stacks[0], far, stacks[1], thick_affine) is None


@pytest.mark.parametrize("thickness", [0.8, 1.0, 1.3])
def test_thickness_is_found_by_a_stack_that_is_as_thick(thickness):
    """Each shows what the other blurs: averaged alike, the two differ by the thickness alone."""
    (shape, affine), (thick, thick_affine), phantom = grid(0, thick=4), grid(2, thick=4), Phantom(8)
    voxels = [phantom.stack(shape, affine), phantom.stack(thick, thick_affine, thickness=thickness)]
    other, stack = (
        Stack(torch.from_numpy(v).float(), place, 1.0, "", torch.ones(v.shape, dtype=torch.bool))
        for v, place in zip(voxels, (affine, thick_affine), strict=True)
    )
    found = estimate_thickness(voxels[0], affine, average_like(stack, other).numpy(), thick_affine)
    assert found == pytest.approx(thickness, abs=0.03)
