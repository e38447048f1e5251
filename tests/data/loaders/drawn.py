"""Volumes to draw from, where in them a patch is from, and what holds of the batches of every loader."""

import itertools
import math

import numpy as np
import torch

from common.data import VolumeCache
from common.data.loaders import slabs
from tests.refused import refused


def noise(*shape, seed=0):
    """A volume (1, X, Y, Z) in [0, 1] whose voxels all differ, so that a patch shows where it is from."""
    count = math.prod(shape)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ((order + 0.5) / count).view(1, *shape)


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


def half_air(*shape, seed=0):
    """The same, whose first half along the first axis has values of at most 0.04, and its second of at least 0.06."""
    volume, half = noise(*shape, seed=seed), shape[0] // 2
    volume[:, :half], volume[:, half:] = 0.04 * volume[:, :half], 0.06 + 0.94 * volume[:, half:]
    return volume


def origin(patch, volumes, order=None):
    """Where a patch (h, w, d) is from, of volumes (X, Y, Z) whose voxels all differ, perhaps only in one order of axes.

    Returns the number of the volume, its axis along each axis of the patch, the mirrored axes of the patch, and the
    patch's lowest voxel in the volume with its axes in that order.
    """
    for number, volume in enumerate(volumes):
        values, places = volume.flatten().sort()
        found = torch.searchsorted(values, patch.flatten() - 2e-7).clamp(max=len(values) - 1)
        if (values[found] - patch.flatten()).abs().max() > 2e-7:
            continue
        index = torch.stack(torch.unravel_index(places[found], volume.shape)).view(3, *patch.shape)
        axes, mirrored = [], []
        for axis, size in enumerate(patch.shape):
            if size == 1:
                axes.append(None)
                continue
            steps = index.diff(dim=1 + axis).flatten(1).unique(dim=1)
            assert steps.abs().sum() == 1, "one voxel on at each step"
            axes.append(int(steps[:, 0].abs().argmax()))
            mirrored += [axis] if steps.sum() < 0 else []
        axes = tuple(min({0, 1, 2} - {*axes}) if axis is None else axis for axis in axes)
        if order in (None, axes):
            lowest = index.flatten(1).amin(dim=1)
            return number, axes, tuple(mirrored), tuple(int(lowest[axis]) for axis in axes)
    raise AssertionError("the patch is of none of the volumes")
