"""The median over forms: of a network that is the same for all of them its result, else numpy's."""

import itertools

import numpy as np
import pytest
import torch

from common.inferers import EnsembleInferer, OrthogonalInferer


def lopsided(images):
    """Differs for each mirrored or turned form."""
    height, width = images.shape[2:]
    return images.square() + images * (torch.linspace(0, 1, height)[:, None] - torch.linspace(0, 3, width) ** 2)


@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_median_over_the_forms(turned):
    images = torch.rand(3, 1, 5, 7)
    results = []
    for flips, turn in itertools.product(itertools.product([False, True], repeat=2), [False, True][: 1 + turned]):
        axes = [2 + i for i, flip in enumerate(flips) if flip]
        form = np.flip(images.numpy().swapaxes(2, 3) if turn else images.numpy(), axes)
        result = np.flip(lopsided(torch.from_numpy(form.copy())).numpy(), axes)
        results.append(result.swapaxes(2, 3) if turn else result)
    assert len(results) == (8 if turned else 4)
    expected = np.median(results, axis=0)
    found = EnsembleInferer(lambda inputs, network: network(inputs), turned)(images, lopsided)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    alone = EnsembleInferer(lambda inputs, network: network(inputs), turned, enabled=False)(images, lopsided)
    assert torch.equal(alone, lopsided(images)) and not torch.allclose(alone, found)


def test_on_a_volume():
    volume = torch.rand(1, 1, 5, 6, 7)
    inferer = OrthogonalInferer([0, 1, 2], keeps_size=True)
    torch.testing.assert_close(EnsembleInferer(inferer, True)(volume, torch.square), volume.square())
