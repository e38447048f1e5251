import numpy as np
import torch

from common.geometry.deformation import Deformation
from common.geometry.resampling import SplineResampling
from common.stacks import StackOperator

from .phantom import Phantom, acquire, grid, moved


def make_deformation(size: float = 3.0) -> Deformation:
    """Up to some mm between nodes that lie 16 mm apart, obliquely."""
    displacements = size * (2 * torch.rand(3, 5, 5, 5, generator=torch.Generator().manual_seed(0)) - 1)
    nodes = moved(np.array([0, 0, 0, 5.0, -8, 3])) @ np.diag([16.0, 16, 16, 1])
    nodes[:3, 3] = -nodes[:3, :3] @ [2, 2, 2]
    return Deformation(displacements, nodes)


def test_the_inverse_brings_points_back():
    deformation = make_deformation()
    points = torch.from_numpy(np.random.default_rng(0).uniform(-40, 40, (3, 500)))
    there = points + deformation.displace(points)
    assert float((there - points).norm(dim=0).max()) > 2
    assert float((there + deformation.find_origin(there) - points).norm(dim=0).max()) < 0.05
    affine = grid(1, (10, 20, 30))[1]
    voxels = torch.from_numpy(np.linalg.inv(affine)) @ torch.cat([points, torch.ones(1, 500)])
    for inverse, world in ((False, there), (True, points + deformation.find_origin(points))):
        moved_voxels = deformation.convert_to_voxels(affine, inverse)(voxels[:3])
        back = torch.from_numpy(affine[:3, :3]) @ moved_voxels + torch.from_numpy(affine[:3, 3:])
        assert torch.allclose(back, world, atol=1e-6)


def test_a_deformed_stack_shows_and_gives_back_the_volume():
    """The operator goes the way of the deformation, the resampling of a stack to the volume's grid the other way."""
    (shape, affine), deformation = grid(2, thick=1), make_deformation()

    class Deformed(Phantom):
        def at(self, points):
            flat = torch.from_numpy(points.reshape(-1, 3).T)
            return super().at((flat + deformation.displace(flat)).numpy().T.reshape(points.shape))

    true = torch.from_numpy(Phantom(1).on(shape, affine)).float()
    stack = acquire(Deformed(1), 0, (8, -4, 6))
    size = stack.voxels.shape
    operators = [StackOperator(shape, affine, size, stack.affine, deformation=d) for d in (None, deformation)]
    off = [float(((a(true) - stack.voxels) * a.weights).square().mean()) for a in operators]
    assert off[1] < 0.05 * off[0]
    thin = torch.from_numpy(Deformed(1).on(shape, affine)).float()
    back = SplineResampling(shape, shape, np.eye(4), deformation.convert_to_voxels(affine, inverse=True))(thin)
    inner = np.s_[8:-8, 8:-8, 8:-8]
    assert float((back - true)[inner].abs().mean()) < 0.05 * float((thin - true)[inner].abs().mean())
