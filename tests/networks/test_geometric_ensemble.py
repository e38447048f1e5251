"""The mean over eight forms: numpy's, and nothing new for a network to which all forms are alike."""

import numpy as np
import torch

from common.networks import GeometricEnsemble


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
