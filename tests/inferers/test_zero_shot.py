"""Zero-shot super-resolution is its parts in turn, across the axes whose images become finer."""

import pytest
import torch

from common.degradations import as_scanned
from common.inferers import (
    ConsistentInferer,
    EnsembleInferer,
    InterpolatedInferer,
    OrthogonalInferer,
    ZeroShotInferer,
)


@pytest.mark.parametrize(("factors", "planes"), [((2, 2, 2), [0, 1, 2]), ((2, 2, 1), [2]), ((1, 1, 3), [0, 1])])
def test_parts(factors, planes):
    degradation = as_scanned(factors)
    volume = torch.rand(1, 1, 6, 6, 6)
    forms = EnsembleInferer(OrthogonalInferer(planes, keeps_size=True), degradation.factors[0] > 1)
    expected = ConsistentInferer(InterpolatedInferer(forms, degradation), degradation, 1)

    def network(images):
        return images * torch.linspace(0, 1, images.shape[3])

    found = ZeroShotInferer(degradation)(volume, network)
    assert torch.equal(found, expected(volume, network)) and found.shape[2:] == degradation.hr_size((6, 6, 6))
    plain = ZeroShotInferer(degradation, ensemble="false", iterations=0)
    assert not torch.equal(plain(volume, network), found)
