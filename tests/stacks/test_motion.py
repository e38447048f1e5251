"""Where stacks lie on a volume, and how thick their slices are."""

import numpy as np
import pytest

from common.stacks import estimate_motion, estimate_slice_motions, estimate_thickness, make_rigid_matrix

from .phantom import RADII, Phantom, grid, moved

SHAPE, AFFINE = grid(2, thick=1)
LANDMARKS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.6 * RADII


def thin(phantom, shape, affine, motion):
    """As fine a volume over a stack's field of view as a network would make of it, if it knew all."""
    fine = affine @ np.diag([1, 1, 0.25, 1])
    fine[:3, 3] = affine[:3, 3] - affine[:3, 2] * 0.375
    return phantom.on((*shape[:2], shape[2] * 4), fine, motion), fine


@pytest.mark.parametrize("seed", range(3))
def test_a_motion_is_found(seed):
    rng = np.random.default_rng(seed)
    phantom = Phantom(seed)
    true = moved(np.concatenate([rng.uniform(-5, 5, 3), rng.uniform(-5, 5, 3)]))
    shape, affine = grid(seed, rng.uniform(-20, 20, 3))
    acquired = 1.2 * phantom.stack(shape, affine, np.linalg.inv(true))
    volume, fine = thin(phantom, shape, affine, np.linalg.inv(true))
    found = estimate_motion(phantom.on(SHAPE, AFFINE), AFFINE, (1.2 * volume, fine), (acquired, affine))
    off = LANDMARKS @ (true - found.matrix)[:3, :3].T + (true - found.matrix)[:3, 3]
    assert np.linalg.norm(off, axis=1).max() < 0.05
    assert found.correlation[1] > 0.999 > found.correlation[0] and found.overlap > 0.9


def test_what_lies_beyond_the_volume_does_not_count():
    """A volume that shows a part of the head, and one that lies elsewhere."""
    phantom = Phantom()
    shape, affine = grid(0)
    stack, fine = phantom.stack(shape, affine), thin(phantom, shape, affine, None)
    for cut, least, most in ((24, 0.5, 0.8), (60, 0.0, 0.1)):
        size, place = (SHAPE[0] - cut, *SHAPE[1:]), AFFINE.copy()
        place[0, 3] += cut
        found = estimate_motion(phantom.on(size, place), place, fine, (stack, affine))
        assert least <= found.overlap <= most
        assert cut > 50 or np.abs(found.numbers).max() < 0.05


def test_rigid_turns_about_its_centre():
    centre = np.array([10.0, -20, 30])
    matrix = make_rigid_matrix(np.array([1.0, 2, 3, 10, 20, 30]), centre)
    assert np.allclose((matrix @ [*centre, 1])[:3], centre + np.array([1, 2, 3]))
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))


def test_where_each_slice_lies_is_found():
    """To a tenth of a millimetre on the mean, where it shows something."""
    phantom, (shape, affine), rng = Phantom(5), grid(0), np.random.default_rng(0)
    true = [moved(np.concatenate([rng.uniform(-1.5, 1.5, 3), rng.uniform(-2, 2, 3)])) for _ in range(shape[2])]
    slices = []
    for i, motion in enumerate(true):
        place = affine.copy()
        place[:3, 3] += i * place[:3, 2]
        slices.append(phantom.stack((*shape[:2], 1), place, np.linalg.inv(motion)))
    stack = np.concatenate(slices, axis=2)
    found = estimate_slice_motions(phantom.on(SHAPE, AFFINE), AFFINE, stack, affine)
    points = np.stack([[0, y, z] for y in (-12, 12) for z in (-12, 12)])
    off = []
    for i in range(3, shape[2] - 3):
        middle = (affine @ [*(np.array(shape[:2]) - 1) / 2, i, 1])[:3]
        places = points + middle
        difference = true[i] - found[i]
        off.append(np.linalg.norm(places @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())
    assert np.mean(off) < 0.1


@pytest.mark.parametrize("thickness", [0.7, 1.0, 1.4])
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
    assert (
        estimate_thickness(phantom.stack(shape, affine), far, phantom.stack(thick, thick_affine), thick_affine) is None
    )
