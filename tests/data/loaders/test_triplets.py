"""Three slices in a row, and three images equally far apart, of one scan."""

import pytest
import torch

from common.data import TripletLoader, VolumeCache


def volumes(*shape):
    x, y, z = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    return VolumeCache([{"lr": (1e4 * x + 1e2 * y + z)[None] + 1e6}], lambda entry: entry, ["lr"])


def test_what_is_cut():
    """By the voxels' own numbers: rows of slices, images across x and y, at each distance, mirrored or not."""
    loader = TripletLoader(volumes(20, 22, 9), (8, 6), 3, batch_size=64, seed=0, device="cpu")
    batch = next(iter(loader))
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        **dict.fromkeys(("above", "slice", "below"), (64, 1, 8, 8)),
        **dict.fromkeys(("first", "second", "third"), (64, 1, 8, 6)),
    }
    for first, second, third in (("above", "slice", "below"), ("first", "second", "third")):
        step = batch[second] - batch[first]
        assert torch.equal(step, batch[third] - batch[second])
        assert all(len(each.unique()) == 1 for each in step)
    steps = (batch["second"] - batch["first"])[:, 0, 0, 0].abs()
    assert set(steps.tolist()) == {d * axis for d in (1, 2, 3) for axis in (1e4, 1e2)}
    assert set((batch["slice"] - batch["above"])[:, 0, 0, 0].tolist()) == {1.0, -1.0}
    again = TripletLoader(volumes(20, 22, 9), (8, 6), 3, batch_size=64, seed=0, device="cpu")
    again.set_iteration(1)
    assert not torch.equal(next(iter(again))["first"], batch["first"])


def test_small_volumes_are_refused():
    for shape in ((20, 6, 9), (20, 22, 5), (20, 22, 2)):
        with pytest.raises(ValueError, match=r"fewer than the patch .*; use a smaller lr_patch"):
            TripletLoader(volumes(*shape), (8, 6), 3, batch_size=1, seed=0, device="cpu")
