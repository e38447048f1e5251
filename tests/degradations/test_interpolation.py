"""What is left of a volume on its own grid, and an LR volume on HR's: scipy's spline at the positions of HR voxels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile, Interpolated, KSpaceTruncation, interpolated

THICK = [(GaussianProfile((1, 1, 2.6)), (5, 6, 23)), (GaussianProfile((1, 1, 4)), (5, 6, 24))]


@pytest.mark.parametrize(("degradation", "size"), [*THICK, (KSpaceTruncation((2, 2, 1)), (8, 10, 3))], ids=str)
def test_it_is_the_spline_at_the_positions_of_the_voxels(degradation, size):
    hr = torch.rand(2, 1, *size, dtype=torch.float64)
    lr = degradation(hr)
    kept, upsampled = Interpolated(degradation)(hr), interpolated(lr, degradation)
    assert kept.shape == hr.shape and upsampled.shape[2:] == degradation.hr_size(lr.shape[2:])
    for result in (kept, upsampled):
        axes = zip(result.shape[2:], degradation.factors, degradation.offset, strict=True)
        grid = np.meshgrid(*[(np.arange(n) - o) / f for n, f, o in axes], indexing="ij")
        expected = [map_coordinates(volume[0].numpy(), grid, order=3, mode="nearest") for volume in lr]
        np.testing.assert_allclose(result[:, 0], expected, atol=1e-9)
