"""Three slices in a row, and three images equally far apart, of one scan."""

import torch

from common.data import TripletLoader
from tests.data.loaders.drawn import cache, take
from tests.refused import refused


def loader_of(*shape, batch_size=1, place="cpu", device="cpu"):
    x, y, z = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    volumes = cache({"lr": ((1e4 * x + 1e2 * y + z)[None] + 1e6).to(place)})
    return TripletLoader(volumes, (8, 6), 4, batch_size=batch_size, seed=0, device=device, max_distance=3)


def test_rows_of_slices_and_images_across_x_and_y_are_cut_at_each_distance_mirrored_or_not():
    batch, following = take(loader_of(20, 22, 9, batch_size=64), 2)
    rows, images = ("above", "slice", "below"), ("first", "second", "third")
    shapes = {**dict.fromkeys(rows, (64, 1, 8, 8)), **dict.fromkeys(images, (64, 1, 8, 6))}
    assert {key: tuple(value.shape) for key, value in batch.items()} == shapes
    for first, second, third in (rows, images):
        step = batch[second] - batch[first]
        assert torch.equal(step, batch[third] - batch[second])
        assert all(len(each.unique()) == 1 for each in step)
    steps = (batch["second"] - batch["first"])[:, 0, 0, 0].abs()
    assert set(steps.tolist()) == {d * axis for d in (1, 2, 3) for axis in (1e4, 1e2)}
    assert set((batch["slice"] - batch["above"])[:, 0, 0, 0].tolist()) == {1.0, -1.0}
    assert not torch.equal(following["first"], batch["first"])
    for small in ((20, 6, 9), (20, 22, 5), (20, 22, 2)):
        refused(lambda small=small: loader_of(*small), ValueError, "0.nii", small, "lr_patch")
