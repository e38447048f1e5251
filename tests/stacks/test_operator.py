import numpy as np
import pytest
import torch

from common.geometry.deformation import Deformation
from common.stacks import StackOperator

from .phantom import Phantom, grid, moved

HR_SHAPE, HR_AFFINE = grid(2, thick=1)


@pytest.mark.parametrize(
    ("across", "turned", "thickness"), [(2, (0, 0, 0), 1.0), (0, (0, 0, 0), 0.8), (1, (12, -20, 7), 1.2)]
)
def test_it_shows_what_a_scanner_would(across, turned, thickness):
    phantom = Phantom()
    motion = moved(np.array([2.0, -1, 3, 4, -3, 2]))
    shape, affine = grid(across, turned)
    # The head moves by the inverse, where the stack is taken to move.
    acquired = phantom.stack(shape, affine, np.linalg.inv(motion), thickness)
    operator = StackOperator(HR_SHAPE, HR_AFFINE, shape, motion @ affine, thickness)
    seen = operator.weights.numpy() > 0
    shown = operator(torch.from_numpy(phantom.on(HR_SHAPE, HR_AFFINE)).float()).numpy()
    assert seen.mean() > 0.5 and (shown[~seen] == 0).all()
    assert np.abs(shown - acquired)[seen].max() < 0.01
    normal = np.linalg.inv(HR_AFFINE[:3, :3]) @ (motion @ affine)[:3, 2]
    assert np.allclose(operator.across, normal / np.linalg.norm(normal))
    assert operator.sigma == pytest.approx(thickness * 4 / 2.3548, rel=1e-3)


def test_pixels_that_are_larger_are_averaged():
    shape, affine = (32, 32, 16), grid(2)[1] @ np.diag([2.0, 2, 1, 1])
    operator = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine)
    index = torch.arange(64.0)
    wave = (-1.0) ** index[:, None, None].expand(64, 64, 64)  # the finest that the volume holds
    assert operator(wave)[2:-2].abs().max() < 0.05


@pytest.mark.parametrize("turned", [(12, -20, 7), (0, 180, 0)])
@pytest.mark.parametrize(("moves", "thickness"), [(False, 0.7), (False, 1.0), (True, 1.0)])
def test_adjoint(turned, moves, thickness):
    """Also along parallel axes, with slices that move, and a deformation after that."""
    shape, affine = grid(1, turned, size=16)
    hr_shape, hr_affine = grid(2, size=16, thick=1)
    rng = torch.Generator().manual_seed(0)
    motions = deformation = None
    if moves:
        motions = np.stack([moved(numbers) for numbers in np.random.default_rng(0).uniform(-1, 1, (shape[2], 6))])
        deformation = Deformation(torch.rand(3, 3, 3, 3, generator=rng), np.diag([8.0, 8, 8, 1]))
    operator = StackOperator(hr_shape, hr_affine, shape, affine, thickness, motions, deformation)
    x, y = torch.rand(hr_shape, generator=rng), torch.rand(shape, generator=rng)
    assert operator.weights.mean() > 0.1
    assert float((operator(x) * y).sum()) == pytest.approx(float((x * operator.adjoint(y)).sum()), rel=1e-4)


def test_slices_that_move_by_themselves():
    """Each shows what a scanner would have seen of the head where that was then; without motion it is the same."""
    phantom, (shape, affine) = Phantom(), grid(1, (5, 3, -4))
    rng = np.random.default_rng(0)
    motions = np.stack([moved(rng.uniform(-2, 2, 6)) for _ in range(shape[2])])
    volume = torch.from_numpy(phantom.on(HR_SHAPE, HR_AFFINE)).float()
    operator = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine, slice_motions=motions)
    shown, seen = operator(volume).numpy(), operator.weights.numpy() > 0
    for i, motion in enumerate(motions):
        place = affine.copy()
        place[:3, 3] += i * place[:3, 2]
        acquired = phantom.stack((*shape[:2], 1), place, np.linalg.inv(motion))[..., 0]
        assert np.abs((shown[..., i] - acquired) * seen[..., i]).max() < 0.01
    assert seen.any(axis=(0, 1)).sum() > 10
    still = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine, slice_motions=np.stack([np.eye(4)] * shape[2]))
    rigid = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine)
    both = (still.weights * rigid.weights) > 0
    assert (still(volume) - rigid(volume))[both].abs().max() < 0.01


@pytest.mark.parametrize("across", [0, 1, 2])
def test_parallel_axes_in_any_order_and_direction(across):
    """Their matrices give what is sampled voxel by voxel, as for slices that might move."""
    shape, affine = grid(across, (0, 180, 0), size=32)
    affine = affine @ np.diag([1.3, 0.9, 1, 1])
    noise = torch.rand(HR_SHAPE, generator=torch.Generator().manual_seed(0))
    sampled = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine, 0.8, np.stack([np.eye(4)] * shape[2]))
    parallel = StackOperator(HR_SHAPE, HR_AFFINE, shape, affine, 0.8)
    torch.testing.assert_close(parallel(noise), sampled(noise), atol=1e-4, rtol=0)


def test_what_lies_beyond_the_outer_centres_of_a_volume_is_not_seen():
    """There the volume is extrapolated, and the stack may show what it lacks."""
    affine = HR_AFFINE.copy()
    affine[0, 3] += 0.3 * HR_AFFINE[0, 0]
    seen = StackOperator(HR_SHAPE, HR_AFFINE, HR_SHAPE, affine).weights
    assert seen[:-1].all() and not seen[-1].any()
