"""Interpolation of a slab puts polynomials where they belong."""

import pytest
import torch

from common.networks import SlabInterpolation

SCALES = [(2, 2, 2), (2, 2, 1), (3, 3, 2), (4, 4, 3), (1, 1, 3)]


def no_offset(scale):
    return (0.0, 0.0, 0.0)


def block_offset(scale):
    return tuple((s - 1) / 2 for s in scale)


def grids(scale, offset, size):
    """World coordinates (in HR voxels) of LR and of HR voxels."""
    lr = [s * torch.arange(n, dtype=torch.float64) + o for s, o, n in zip(scale, offset, size, strict=True)]
    hr = [torch.arange(s * n, dtype=torch.float64) for s, n in zip(scale, size, strict=True)]
    return torch.meshgrid(*lr, indexing="ij"), torch.meshgrid(*hr, indexing="ij")


def inside(scale, offset, size):
    """HR voxels that are two LR pixels from the border, and between the outermost slices."""
    where = [slice(2 * s, s * (n - 2)) for s, n in zip(scale[:2], size[:2], strict=True)]
    positions = [(o - offset[2]) / scale[2] for o in range(scale[2] * size[2])]
    return (*where, torch.tensor([0 <= p <= size[2] - 1 for p in positions]))


def quadratic(x, y, z):
    return 0.01 * x * x - 0.02 * y * y + 0.03 * z * z + 0.01 * x * y - 0.02 * y * z + 0.1 * x - 0.2 * z + 0.5


@pytest.mark.parametrize("offset", [no_offset, block_offset])
@pytest.mark.parametrize("scale", SCALES)
def test_polynomials_to_the_second_degree_stay_in_place(scale, offset):
    for slices in (3, 5):
        size = (8, 9, slices)
        lr, hr = grids(scale, offset(scale), size)
        out = SlabInterpolation(slices, scale, offset(scale))(quadratic(*lr)[None, None].float())[0, 0]
        assert out.shape == hr[0].shape
        where = inside(scale, offset(scale), size)
        assert torch.allclose(out[where].double(), quadratic(*hr)[where], atol=1e-4)


@pytest.mark.parametrize("offset", [no_offset, block_offset])
@pytest.mark.parametrize("scale", SCALES)
def test_constants_stay_at_the_borders_too(scale, offset):
    out = SlabInterpolation(3, scale, offset(scale))(torch.full((2, 1, 5, 6, 3), 0.7))
    assert torch.allclose(out, torch.tensor(0.7), atol=1e-6)


def test_without_an_offset_lr_voxels_are_kept_exactly():
    lr = torch.rand(1, 1, 6, 7, 3)
    out = SlabInterpolation(3, (2, 2, 2), (0, 0, 0))(lr)
    assert torch.allclose(out[:, :, ::2, ::2, ::2], lr, atol=1e-6)
    # Beyond the last slice its values are repeated.
    assert torch.allclose(out[..., 5], out[..., 4], atol=1e-6)


def test_at_the_border_the_outermost_pixels_go_on():
    lr = torch.rand(1, 1, 5, 6, 3)
    wider = torch.nn.functional.pad(lr[0], (0, 0, 3, 3, 3, 3), mode="replicate")[None]
    for offset in (0.0, 0.5):
        network = SlabInterpolation(3, (2, 2, 2), (offset,) * 3)
        assert torch.allclose(network(lr), network(wider)[:, :, 6:-6, 6:-6], atol=1e-6)


def test_it_has_nothing_to_train_and_travels_with_the_weights():
    trained_with, other = SlabInterpolation(3, (2, 2, 2), (0, 0, 0)), SlabInterpolation(3, (2, 2, 2), (0.5, 0.5, 0.5))
    assert not list(other.parameters())
    lr = torch.rand(1, 1, 6, 7, 3)
    assert not torch.allclose(other(lr), trained_with(lr), atol=1e-3)
    other.load_state_dict(trained_with.state_dict())
    assert torch.equal(other(lr), trained_with(lr))


def test_what_it_cannot_do_is_said():
    with pytest.raises(ValueError, match="at least 3 slices, got 1"):
        SlabInterpolation(1, (2, 2, 2), (0, 0, 0))
    with pytest.raises(ValueError, match="same in-plane factors"):
        SlabInterpolation(3, (2, 1, 2), (0, 0, 0))
    with pytest.raises(ValueError, match="same in-plane factors"):
        SlabInterpolation(3, (2, 2, 2), (0, 0.5, 0))
