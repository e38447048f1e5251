"""The mean over eight forms: numpy's, and nothing new for a network to which all forms are alike."""

import numpy as np
import torch

from common.networks import GeometricEnsemble


class Lopsided(torch.nn.Module):
    def forward(self, slab):
        height, width = slab.shape[2:4]
        return slab.square() + slab * (torch.arange(height)[:, None, None] + 3 * torch.arange(width)[:, None])


def test_it_is_the_mean_over_the_forms():
    slab = torch.rand(2, 1, 6, 6, 3)
    results = []
    for turn in range(4):
        for flip in (False, True):
            form = np.rot90(slab.numpy(), turn, (2, 3))
            form = np.flip(form, 2) if flip else form
            result = Lopsided()(torch.from_numpy(form.copy())).numpy()
            results.append(np.rot90(np.flip(result, 2) if flip else result, -turn, (2, 3)))
    np.testing.assert_allclose(GeometricEnsemble(Lopsided())(slab), np.mean(results, axis=0), atol=1e-5)
    convolution = torch.nn.Conv3d(1, 1, 3, padding=1)
    torch.nn.init.constant_(convolution.weight, 0.1)
    torch.testing.assert_close(GeometricEnsemble(convolution)(slab), convolution(slab))
