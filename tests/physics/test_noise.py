import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.special import ive
from scipy.stats import rice

from common.degradations import RicianNoise
from common.physics.noise import compute_rician_bias, estimate_noise_in_air, estimate_noise_levels


def head(size=48):
    """A bright ball with texture, of a quarter of the volume, in air."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, size)] * 3, indexing="ij"))
    texture = 0.2 * torch.randn((size,) * 3, generator=torch.Generator().manual_seed(1))
    return ((0.6 + texture) * (grid.square().sum(0) < 0.6))[None, None]


@pytest.mark.parametrize("sigma", [0.0025, 0.005, 0.01, 0.02, 0.04])
def test_the_noise_is_that_of_the_air_also_where_it_was_rounded(sigma):
    scan = RicianNoise(sigma, seed=3)(head())
    assert estimate_noise_in_air(scan).item() == pytest.approx(sigma, rel=0.03)
    for levels in (500, 250) if sigma == 0.01 else ():
        assert estimate_noise_in_air((scan * levels).round() / levels).item() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("reach", [0, 1, 4])
def test_the_border_of_a_mask_is_not_taken_for_noise(reach):
    """Texture is dark where a mask cuts through it, or leaves little air around it."""
    smooth = torch.from_numpy(gaussian_filter(head().numpy(), (0, 0, 1, 1, 1)))
    scan, mask = RicianNoise(0.004, seed=3)(smooth), smooth > 0.05
    if reach:
        mask = torch.from_numpy(binary_dilation(mask[0, 0], iterations=reach))
    assert estimate_noise_in_air(scan * mask).isnan()
    assert estimate_noise_in_air(scan).item() == pytest.approx(0.004, rel=0.05)


def test_where_no_air_shows_it_nothing_is_said_but_a_warning_of_training_scans():
    noise = RicianNoise(0.02, seed=3)
    crop = 0.5 + noise(torch.zeros(1, 1, 24, 24, 24))
    crop[..., :8, :8, :4] *= 0.1  # a dark part of the body
    tissue, masked = 0.5 + noise(torch.zeros(1, 1, 24, 24, 24)), noise(head(24)) * (head(24) != 0)
    assert all(estimate_noise_in_air(images).isnan() for images in (tissue, crop, masked, torch.zeros(1, 1, 6, 24, 24)))
    with pytest.warns(UserWarning, match="1 of 2 LR scans show no air"):
        levels = estimate_noise_levels(
            [{"lr": RicianNoise(0.02, seed=3)(head())[0]}, {"lr": torch.ones(1, 24, 24, 24)}]
        )
    assert levels == [pytest.approx(0.02, rel=0.03), 0.0]


def test_the_bias_is_that_of_the_rice_distribution():
    signal, sigma = torch.tensor([0.0, 0.003, 0.02, 0.1, 0.2, -0.02]), 0.02
    expected = rice.mean(signal.abs().numpy() / sigma, scale=sigma) - signal.abs().numpy()
    np.testing.assert_allclose(compute_rician_bias(signal, torch.tensor(sigma)), expected, atol=2e-7)
    # Where the table ends, the series of a strong signal goes on.
    strong = np.array([0.3199, 0.3201, 0.9])
    q = strong**2 / 2 / sigma**2
    expected = sigma * (np.pi / 2) ** 0.5 * ((1 + q) * ive(0, q / 2) + q * ive(1, q / 2)) - strong
    found = compute_rician_bias(torch.from_numpy(strong), torch.tensor(sigma))
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert compute_rician_bias(signal, torch.tensor(0.0)).abs().max() == 0


def test_the_bias_of_what_is_no_number_is_none():
    signal = torch.tensor([float("nan"), 1.0, float("inf")])
    assert compute_rician_bias(signal, torch.tensor(0.1)).isnan().tolist()[:2] == [True, False]
