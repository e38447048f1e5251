"""Draws as the loaders' documentation has them, sample by sample, for comparison."""

import numpy as np


def generator(seed, iteration, sample):
    """The random numbers of one sample of a batch, of which the first is iteration 1."""
    return np.random.default_rng([seed, iteration, sample])


def choice(values, rng):
    return values[int(rng.integers(len(values)))]


def coin(rng):
    return bool(rng.random() < 0.5)


def start(volume, size, rng):
    """First voxel of a patch of a volume (1, X, Y, Z): the first of 20 with 30 % tissue, or the best.

    Every second voxel of every second row of its middle slice is looked at.
    """
    found = []
    for _ in range(20):
        first = [int(rng.integers(n - k + 1)) for n, k in zip(volume.shape[1:], size, strict=True)]
        patch = volume[0][tuple(slice(a, a + k) for a, k in zip(first, size, strict=True))]
        found.append(((patch[::2, ::2, size[2] // 2] > 0.05).float().mean().item(), first))
        if found[-1][0] >= 0.3:
            break
    return max(found, key=lambda one: one[0])[1]
