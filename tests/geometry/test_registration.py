"""How stacks lie on each other, and whether they are of one contrast."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.geometry.registration.stacks import Region, register_stacks
from common.geometry.rigid import make_rigid_matrix
from tests.stacks.phantom import RADII, Phantom, acquire, grid, moved, shade

LANDMARKS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.6 * RADII


def measure_offset(true: np.ndarray, found: np.ndarray, near: float = 1.0) -> float:
    """The largest distance in mm between landmarks after two motions."""
    off = near * LANDMARKS @ (true - found)[:3, :3].T + (true - found)[:3, 3]
    return float(np.linalg.norm(off, axis=1).max())


def draw_motion(rng: np.random.Generator, degrees: float) -> np.ndarray:
    axis = rng.normal(size=3)
    return moved(np.concatenate([rng.uniform(-5, 5, 3), degrees * axis / np.linalg.norm(axis)]))


@pytest.mark.parametrize("seed", range(2))
def test_a_large_motion_is_found_under_any_brightness(seed):
    """A turn of 15 degrees; this field, 3 to 1 over 64 mm, is thrice as steep as a head coil's."""
    rng, phantom = np.random.default_rng(seed), Phantom(seed)
    true = draw_motion(rng, 15.0)
    fixed, moving = acquire(phantom, 2), acquire(phantom, seed, rng.uniform(-20, 20, 3), np.linalg.inv(true))
    found = register_stacks(fixed, replace(moving, voxels=700 * moving.voxels))
    assert measure_offset(true, found.matrix) < 0.4
    assert found.correlation[1] > 0.99 > found.correlation[0] and found.overlap > 0.7
    assert found.deformation is None and found.reversal == 0
    assert np.allclose(found.matrix, make_rigid_matrix(found.motion, moving.centre))
    found = register_stacks(fixed, replace(moving, voxels=shade(moving.voxels)))
    assert measure_offset(true, found.matrix) < 2.5
    assert found.correlation[1] > 0.98 and found.deformation is None and found.reversal < 0.005


def test_a_region_moves_by_itself():
    """A ball turns in a head that stays, as a fetal brain does: the region says which of the two is followed."""
    true = moved(np.array([2.0, -1, 2, 6, -8, 4]))
    inside, outside = Phantom(4), Phantom(5)

    class Both(Phantom):
        def at(self, points):
            edge = 1 / (1 + np.exp(3 * (np.linalg.norm(points, axis=-1) - 15)))
            return edge * inside.at(points @ self.back[:3, :3].T + self.back[:3, 3]) + (1 - edge) * outside.at(points)

    still, turned = Both(), Both()
    still.back, turned.back = np.eye(4), true
    fixed, moving = acquire(still, 2), acquire(turned, 0)
    shape, affine = grid(1, (10, 0, 0), size=48, thick=2)  # on a grid of its own
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    mask = torch.from_numpy(np.linalg.norm(places, axis=-1) < 14).float()
    assert measure_offset(true, register_stacks(fixed, moving, Region(mask, affine)).matrix, near=0.4) < 1.0
    assert measure_offset(np.eye(4), register_stacks(fixed, moving).matrix) < 1.5


@pytest.mark.parametrize(("kept", "least", "most"), [(16, 0.85, 1.0), (8, 0.8, 1.0)])
def test_the_overlap_counts_what_can_overlap(kept, least, most):
    """A thin slab of a head lies in the whole head."""
    fixed, moving = acquire(Phantom(2), 2), acquire(Phantom(2), 0)
    first = (16 - kept) // 2
    place = moving.affine.copy()
    place[:3, 3] += first * place[:3, 2]
    cut = np.s_[..., first : first + kept]
    slab = replace(moving, voxels=moving.voxels[cut], is_measured=moving.is_measured[cut], affine=place)
    found = register_stacks(fixed, slab)
    assert least <= found.overlap <= most
    assert measure_offset(np.eye(4), found.matrix) < 0.5


def test_two_contrasts_are_told_from_noise_and_shading():
    seed = 3
    fixed, same, other = acquire(Phantom(seed), 2), acquire(Phantom(seed), 0), acquire(Phantom(seed, contrast=-1), 0)
    noise = 0.1 * torch.randn(same.voxels.shape, generator=torch.Generator().manual_seed(seed))
    for voxels in (same.voxels, shade(same.voxels), (same.voxels + noise).abs()):
        assert register_stacks(fixed, replace(same, voxels=voxels)).reversal < 0.02
    assert register_stacks(fixed, other).reversal > 0.06


def displace(points: np.ndarray) -> np.ndarray:
    """A smooth displacement of some mm at points ``(..., 3)``."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 4 * np.stack([np.sin(y / 15), 0 * z, np.sin(x / 18)], axis=-1)


class Deformed(Phantom):
    def at(self, points):
        return super().at(points + displace(points))


def test_a_deformation_is_found_where_there_is_one():
    fixed = acquire(Phantom(0), 2)
    found = register_stacks(fixed, acquire(Deformed(0), 0, (4, 2, -3)))
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (500, 3)) * RADII
    rigid = found.matrix[:3, :3] @ points.T + found.matrix[:3, 3:]
    whole = rigid + found.deformation.displace(torch.from_numpy(rigid)).numpy()
    off = [np.linalg.norm(found - (points + displace(points)).T, axis=0).mean() for found in (rigid, whole)]
    assert off[1] < 0.3 * off[0] and off[1] < 0.7, off
    rigid = acquire(Phantom(0), 0, (4, 2, -3), moved(np.array([1.0, 2, -2, 3, -3, 5])))
    noise = 0.03 * torch.randn(rigid.voxels.shape, generator=torch.Generator().manual_seed(0))
    for voxels in (rigid.voxels, (rigid.voxels + noise).abs()):
        assert register_stacks(fixed, replace(rigid, voxels=voxels)).deformation is None
