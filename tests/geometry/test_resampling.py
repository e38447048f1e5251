import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.geometry.resampling import SplineResampling, make_cubic_grid

from ..stacks.phantom import grid, moved

SIZE, NEW = (9, 10, 11), (8, 9, 7)
PLACES = np.linalg.inv(moved(np.array([0.3, -0.4, 0.6, 8, -5, 11]))) @ np.diag([0.9, 1.1, 1.2, 1])


def noise(*size):
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def test_it_is_the_cubic_spline():
    volume = noise(*SIZE)
    index = np.stack(np.meshgrid(*map(np.arange, NEW), indexing="ij")).reshape(3, -1)
    at = PLACES[:3, :3] @ index + PLACES[:3, 3:]
    known = map_coordinates(volume.numpy().astype(float), at, order=3, mode="nearest").reshape(NEW)
    inside = ((at > -0.5) & (at < np.array(SIZE)[:, None] - 0.5)).all(axis=0).reshape(NEW)
    resampling = SplineResampling(SIZE, NEW, PLACES)
    assert 0 < inside.mean() < 1 and (resampling.find_inside().numpy() == inside).all()
    # SciPy's spline is reflected at the border, this one repeats it: away from it they are the same.
    deep = ((at > 2) & (at < np.array(SIZE)[:, None] - 3)).all(axis=0).reshape(NEW)
    result = resampling(volume).numpy()
    assert deep.sum() > 20 and np.abs(result - known)[deep].max() < 0.02
    assert (result[~inside] == 0).all()


def test_it_goes_through_the_voxels():
    volume = noise(*SIZE)
    shifted = np.eye(4)
    shifted[:3, 3] = 1, 2, 3
    assert torch.allclose(SplineResampling(SIZE, (5, 5, 5), shifted)(volume), volume[1:6, 2:7, 3:8], atol=1e-5)
    assert SplineResampling(SIZE, SIZE, np.eye(4))(volume) is volume


@pytest.mark.parametrize("places", [PLACES, np.eye(4)])
def test_adjoint(places):
    resampling = SplineResampling(SIZE, SIZE if places is not PLACES else NEW, places)
    x, y = noise(*SIZE), torch.randn(*resampling.new_size)
    assert float((resampling(x) * y).sum()) == pytest.approx(float((x * resampling.adjoint(y)).sum()), rel=1e-4)


@pytest.mark.parametrize("voxel", [1.0, 0.8, 1.7])
def test_cubes_over_a_field_of_view(voxel):
    shape, affine = grid(1, (10, 20, -5))
    size, cubes = make_cubic_grid(shape, affine, voxel)
    assert np.allclose(np.linalg.norm(cubes[:3, :3], axis=0), voxel)
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.allclose(cubes @ corner, affine @ corner)
    far = cubes @ [*(np.array(size) - 0.5), 1] - affine @ [*(np.array(shape) - 0.5), 1]
    assert np.linalg.norm(far) < voxel
