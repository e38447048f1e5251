"""Batches on a simulated GPU: those of the CPU, without a wait."""

import pytest
import torch

from tests.data.loaders import (
    test_image_pairs,
    test_kernel_crops,
    test_slabs,
    test_slices,
    test_through_plane,
    test_triplets,
)
from tests.data.loaders.drawn import cache, noise, take
from tests.simulated_cuda import Run

OPERATORS = 60  # of a batch of 2 to 16 samples


def loaders(place, device):
    """One of each kind, with its volumes in one place, or in main memory, and its batches on a device."""
    hr, guide, lr = (noise(24, 22, 18, seed=i).to(place) for i in range(3))
    yield "unpaired", test_slabs.unpaired(test_slabs.plain(hr), cache({"lr": lr}), any_axis=True, device=device)
    yield "paired", test_slabs.paired(hr=hr, device=device)
    yield "slices", test_slices.loader_of({"hr": hr, "guide": guide}, guide_shift=1.0, batch_size=12, device=device)
    options = {"kernels": test_slices.KERNELS, "levels": [0.1, 0.2], "angle_step": 45, "device": device}
    yield "kernel slices", test_slices.loader_of({"hr": hr}, **options)
    yield "through plane", test_through_plane.loader_of([hr], [lr], contrasts=5, device=device)
    yield "triplets", test_triplets.loader_of(20, 22, 9, batch_size=4, place=place, device=device)
    yield "image pairs", test_image_pairs.loader_of(test_image_pairs.volume_of(12, 14, 18).to(place), device=device)
    yield "kernel crops", test_kernel_crops.loader_of(device=device)  # cut from a copy that it has on the device


def compare_on_the_simulated_device(device, place):
    for (kind, here), (_, there) in zip(loaders("cpu", "cpu"), loaders(place, "cuda"), strict=True):
        batches = iter(there)
        for expected in take(here, 4):
            device.begin()
            batch = next(batches)
            device.end(kind)
            for key, value in expected.items():
                assert batch[key].is_cuda and torch.equal(batch[key].cpu(), value), (kind, key)
            found = device.phases[kind][-1].summary()
            assert not found["waits"] and found["operators"] <= OPERATORS, (kind, found)


@pytest.mark.parametrize("place", ["cuda", "cpu"])
def test_batches_on_a_gpu(place, tmp_path):
    Run(tmp_path / "log", "tests.data.loaders.test_on_a_gpu:compare_on_the_simulated_device", place).finish()
