"""The median over forms: of a network that is the same for all of them its result, else numpy's."""

import itertools

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from common.inferers import EnsembleInferer, OrthogonalInferer


def lopsided(images):
    height, width = images.shape[2:]
    return images.square() + images * (torch.linspace(0, 1, height)[:, None] - torch.linspace(0, 3, width) ** 2)


@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_median_over_the_forms(turned):
    images = torch.rand(3, 1, 5, 7)
    results = []
    for axes, turn in itertools.product([(), (2,), (3,), (2, 3)], [False, True][: 1 + turned]):
        form = np.flip(images.numpy().swapaxes(2, 3) if turn else images.numpy(), axes)
        result = np.flip(lopsided(torch.from_numpy(form.copy())).numpy(), axes)
        results.append(result.swapaxes(2, 3) if turn else result)
    found = EnsembleInferer(SimpleInferer(), turned)(images, lopsided)
    np.testing.assert_allclose(found, np.median(results, axis=0), atol=1e-6)
    alone = EnsembleInferer(SimpleInferer(), turned, enabled=False)(images, lopsided)
    assert torch.equal(alone, lopsided(images)) and not torch.allclose(alone, found)
    volume, inferer = torch.rand(1, 1, 5, 6, 7), OrthogonalInferer([0, 1, 2], keeps_size=True)
    torch.testing.assert_close(EnsembleInferer(inferer, turned)(volume, torch.square), volume.square())
