"""Small modules around networks: each by what it alone does."""

import numpy as np
import pytest
import torch

from common.degradations import GaussianProfile, KSpaceTruncation
from common.losses import WeightedL1Loss
from common.networks import (
    DomainDistance,
    GeometricEnsemble,
    HighBands,
    ImagePool,
    PatchDiscriminator,
    SampleAtLRVoxels,
    SignedRange,
    SlabInterpolation,
)

from ..refused import refused


def test_a_network_for_signed_images_sees_and_gives_them():
    image, seen = torch.rand(1, 1, 4, 4, 4), []
    result = SignedRange(lambda signed: seen.append(signed) or signed / 2)(image)
    torch.testing.assert_close(seen[0], 2 * image - 1)
    torch.testing.assert_close(result, image / 2 + 0.25)


@pytest.mark.parametrize("kind", [KSpaceTruncation, GaussianProfile])
def test_a_slab_that_was_interpolated_is_found_again(kind):
    degradation = kind((2, 2, 2))
    slab = torch.linspace(0, 1, 8).view(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 3)  # a ramp, whatever interpolates it
    finer = SlabInterpolation(3, degradation.factors, degradation.offset)(slab)
    found = SampleAtLRVoxels(degradation)(finer)
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


def test_high_bands_are_what_the_means_leave():
    slab = torch.rand(2, 1, 8, 12, 3, dtype=torch.float64)
    low = torch.nn.functional.avg_pool2d(slab[:, 0].permute(0, 3, 1, 2), 2) * 2
    torch.testing.assert_close(HighBands()(slab).square().sum() + low.square().sum(), slab.square().sum())
    rows, columns = torch.arange(8.0)[:, None].expand(8, 12), torch.arange(12.0).expand(8, 12)
    for image, band in ((columns, 0), (rows, 1), ((rows + columns) % 2, 2)):  # ramps and a chequerboard
        energy = HighBands()(image[None, None, :, :, None]).square().sum(dim=(0, 2, 3))
        assert energy[band] > 0 and energy.sum() == energy[band]


def test_domain_distance_lies_where_it_was_judged():
    lr = torch.rand(1, 1, 24, 20, 3, requires_grad=True)
    verdicts = PatchDiscriminator(3, features=4, layers=2)(lr)
    judged = torch.full_like(verdicts, -4.0)
    judged[0, 0, 6, 3] = 4.0  # its patch of 9 x 9 is centred on LR pixel (10, 7)
    weights = DomainDistance(KSpaceTruncation((2, 2, 2)))(judged, lr)
    assert weights.shape == (1, 1, 48, 40, 1)
    assert not DomainDistance(KSpaceTruncation((2, 2, 2)))(verdicts, lr).requires_grad
    place = (weights[0, 0, :, :, 0] > weights.max() - 1e-4).nonzero().float().mean(0)
    assert place.tolist() == [20.5, 14.5]  # HR pixels 20 and 21, 14 and 15
    torch.testing.assert_close(weights.min(), torch.sigmoid(torch.tensor(-4.0)))
    hr, ones = torch.rand(1, 1, 48, 40, 6), torch.ones(1, 1, 48, 40, 1)
    torch.testing.assert_close(WeightedL1Loss()(hr, hr + 0.5, ones), torch.tensor(0.5))
    ones[:, :, :24] = 0
    torch.testing.assert_close(WeightedL1Loss()(hr, hr + 0.5, ones), torch.tensor(0.25))


def lopsided(slab):
    return slab**2 + slab * (torch.arange(6)[:, None, None] + 3 * torch.arange(6)[:, None])


def test_it_is_the_mean_over_the_forms():
    slab, results = torch.rand(2, 1, 6, 6, 3), []
    for turn in range(4):
        for flipped in ((), 2):
            form = np.flip(np.rot90(slab.numpy(), turn, (2, 3)), flipped)
            result = lopsided(torch.from_numpy(form.copy())).numpy()
            results.append(np.rot90(np.flip(result, flipped), -turn, (2, 3)))
    np.testing.assert_allclose(GeometricEnsemble(lopsided)(slab), np.mean(results, axis=0), atol=1e-5)
    convolution = torch.nn.Conv3d(1, 1, 3, padding=1)
    torch.nn.init.constant_(convolution.weight, 0.1)
    torch.testing.assert_close(GeometricEnsemble(convolution)(slab), convolution(slab))
