import numpy as np
import pytest

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
