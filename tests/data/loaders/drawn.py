"""Volumes to draw from, draws as the loaders' documentation has them, and what holds of the batches of every loader."""

import itertools

import numpy as np
import torch

from common.data import VolumeCache
from common.data.loaders import slabs
from tests.refused import refused


def noise(*shape, seed=0):
    """A volume (1, X, Y, Z) whose voxels all differ, so that a patch shows where it is from."""
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def cache(*volumes, keys=None, transform=dict):
    """A cache of dictionaries of tensors, of the files 0.nii, 1.nii and so on."""
    data = [{**dict.fromkeys(volume, f"{i}.nii"), "i": i} for i, volume in enumerate(volumes)]
    return VolumeCache(data, lambda entry: transform(volumes[entry["i"]]), keys or list(volumes[0]))


def take(loader, n):
    return [batch for _, batch in zip(range(n), loader, strict=False)]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def check_draws(make, *keys):
    """Seed and iteration decide a batch; batches differ in each of these keys, samples in the first."""
    batches = take(make(), 5)
    torch.manual_seed(3)
    np.random.seed(3)
    again = make()
    again.set_iteration(3)
    assert_same(take(again, 2), batches[3:])
    # Also where an iterator is already under way, as the trainer's is.
    iterator = iter(again)
    next(iterator)
    again.set_iteration(1)
    assert_same([next(iterator)], batches[1:2])
    different = [*batches, *take(make(seed=1), 5)]
    assert all(not torch.equal(a[key], b[key]) for a, b in itertools.combinations(different, 2) for key in keys)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(batches[0][keys[0]], 2))
    return batches


def check_shares(make, monkeypatch, world=2, dim=0, option="batch_size"):
    """Shares of processes make up the batch along ``dim``; a batch that does not divide is refused."""
    whole, shares = take(make(), 3), []
    monkeypatch.setattr(slabs.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(slabs.dist, "get_world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(slabs.dist, "get_rank", lambda rank=rank: rank)
        shares.append(take(make(), 3))
    for expected, *parts in zip(whole, *shares, strict=True):
        assert_same([{key: torch.cat([part[key] for part in parts], dim) for key in expected}], [expected])
    refused(lambda: make(**{option: 5}), ValueError, f"{option} 5", f"among {world}")


def rng_of(seed, iteration, sample):
    """The random numbers of one sample of a batch, of which the first is iteration 1."""
    return np.random.default_rng([seed, iteration, sample])


def choice(values, rng):
    return values[int(rng.integers(len(values)))]


def coin(rng):
    return bool(rng.random() < 0.5)


def first_voxel(volume, size, rng):
    """First voxel of a patch of a volume (1, X, Y, Z): the first of 20 with 30 % tissue, or the best."""
    found = []  # by every second voxel of every second row of its middle slice
    for _ in range(20):
        first = [int(rng.integers(n - k + 1)) for n, k in zip(volume.shape[1:], size, strict=True)]
        patch = volume[0][tuple(slice(a, a + k) for a, k in zip(first, size, strict=True))]
        found.append(((patch[::2, ::2, size[2] // 2] > 0.05).float().mean().item(), first))
        if found[-1][0] >= 0.3:
            break
    return max(found, key=lambda one: one[0])[1]
