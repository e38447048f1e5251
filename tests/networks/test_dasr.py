"""DASR's parts: a Haar transform that keeps energy, and weights that lie where the patches were judged."""

import torch

from common.degradations import KSpaceTruncation
from common.losses import WeightedL1Loss
from common.networks import DomainDistance, HighBands, PatchDiscriminator


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
    assert (
        weights.shape == (1, 1, 48, 40, 1)
        and not DomainDistance(KSpaceTruncation((2, 2, 2)))(verdicts, lr).requires_grad
    )
    place = (weights[0, 0, :, :, 0] > weights.max() - 1e-4).nonzero().float().mean(0)
    assert place.tolist() == [20.5, 14.5]  # HR pixels 20 and 21, 14 and 15
    torch.testing.assert_close(weights.min(), torch.sigmoid(torch.tensor(-4.0)))
    hr, ones = torch.rand(1, 1, 48, 40, 6), torch.ones(1, 1, 48, 40, 1)
    torch.testing.assert_close(WeightedL1Loss()(hr, hr + 0.5, ones), torch.tensor(0.5))
    ones[:, :, :24] = 0
    torch.testing.assert_close(WeightedL1Loss()(hr, hr + 0.5, ones), torch.tensor(0.25))
