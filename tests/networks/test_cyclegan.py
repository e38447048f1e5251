"""CycleGAN's parts: slabs are sampled where LR voxels lie, and a pool holds what was made before."""

import pytest
import torch

from common.degradations import BlockAverage, KSpaceTruncation
from common.networks import AtVoxels, ImagePool, SlabInterpolation

from ..refused import refused


@pytest.mark.parametrize("kind", [KSpaceTruncation, BlockAverage])
def test_a_slab_that_was_interpolated_is_found_again(kind):
    degradation = kind((2, 2, 2))
    slab = torch.linspace(0, 1, 8).view(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 3)  # a ramp, whatever interpolates it
    finer = SlabInterpolation(3, degradation.factors, degradation.offset)(slab)
    found = AtVoxels(degradation)(finer)
    torch.testing.assert_close(found[:, :, 2:-2, 2:-2], slab[:, :, 2:-2, 2:-2])


def test_a_pool_gives_back_what_was_made_before():
    torch.manual_seed(0)
    pool = ImagePool(4)
    batches = torch.arange(40.0).view(20, 2, 1)
    assert all(torch.equal(pool(batch), batch) for batch in batches[:2])
    given = [pool(batch) for batch in batches[2:]]
    everything = torch.cat([*given, pool.images]).flatten()
    assert sorted(everything.tolist()) == list(range(40))  # exchanged, neither lost nor doubled
    earlier = [bool((g < b.min()).any()) for g, b in zip(given, batches[2:], strict=True)]
    assert 0.4 < sum(earlier) / len(earlier) <= 1 and not pool(batches[0].requires_grad_()).requires_grad
    refused(lambda: pool(torch.zeros(5, 1)), ValueError, "5 images", "pool of 4")


def test_a_pool_is_resumed():
    pool, resumed = ImagePool(4), ImagePool(4)
    resumed.load_state_dict(pool.state_dict())
    for batch in torch.rand(3, 2, 1):
        pool(batch)
    resumed.load_state_dict(pool.state_dict())
    torch.manual_seed(0)
    first = pool(torch.ones(2, 1))
    torch.manual_seed(0)
    assert torch.equal(first, resumed(torch.ones(2, 1)))
