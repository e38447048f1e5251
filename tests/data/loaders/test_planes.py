"""Patches of a volume's planes lie where the volume has them, in the orientation that was asked for."""

import pytest
import torch

from common.data import PlaneLoader


class Volumes(list):
    """What the loader reads of a VolumeCache, of volumes that say at each voxel where it is."""

    def __init__(self, shape, key):
        x, y, z = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
        volume = (1 + x + 100 * y + 10000 * z)[None]
        super().__init__([{key: volume}])
        self.items, self.data = list(self), [{key: "volume"}]


def loader_of(shape, planes, patch=(6, 4), key="lr", batch_size=16):
    return PlaneLoader(Volumes(shape, key), key, patch, planes, batch_size, seed=0, device="cpu")


@pytest.mark.parametrize("planes", [[0], [1], [0, 1], [2]], ids=str)
def test_where_patches_lie(planes):
    hr = next(iter(loader_of((9, 10, 11), planes)))["hr"]
    assert hr.shape == (16, 1, 6, 4)
    units = {0: 1, 1: 100, 2: 10000}
    found = set()
    for patch in hr[:, 0]:
        down, right = (int(abs(step)) for step in (patch[1, 0] - patch[0, 0], patch[0, 1] - patch[0, 0]))
        assert (patch.diff(dim=0).abs() == down).all() and (patch.diff(dim=1).abs() == right).all()
        found.add((down, right))
    lasts = {axis: [(1, 100), (100, 1)] if axis == 2 else [(units[1 - axis], 10000)] for axis in planes}
    assert found == {pair for pairs in lasts.values() for pair in pairs}


def test_a_run_that_is_continued_draws_the_same():
    whole, rest = loader_of((9, 10, 11), [2]), loader_of((9, 10, 11), [2])
    batches = [batch["hr"] for batch, _ in zip(whole, range(3), strict=False)]
    rest.set_iteration(2)
    assert torch.equal(next(iter(rest))["hr"], batches[2]) and not torch.equal(batches[1], batches[2])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"group 'target', volume: the lr volume has \(9, 10, 5\) voxels, fewer than"):
        loader_of((9, 10, 5), [0], patch=(6, 6))
    loader_of((9, 10, 5), [2], patch=(6, 6))
    for planes in ([], [3]):
        with pytest.raises(ValueError, match=r"planes is .*expected some of 0, 1 and 2"):
            loader_of((9, 10, 11), planes)
