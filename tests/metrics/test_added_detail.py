"""What a scan measured of a volume: against volumes whose parts are known."""

import numpy as np
import pytest
import torch

from common.degradations import ComposeDegradations, EllipticalKSpace, GaussianProfile, KSpaceTruncation, RicianNoise
from common.metrics import divide_by_brightness, measure_added_share, split_measured
from tests.bundles.runs import phantom
from tests.refused import refused

SLICES = GaussianProfile((1, 1, 2.5))
SCANS = [
    (KSpaceTruncation((2, 2, 3)), (20, 18, 24)),
    (GaussianProfile((1, 1, 4)), (8, 9, 40)),
    (SLICES, (8, 9, 50)),
    (GaussianProfile((1, 4, 1)), (6, 36, 5)),
    (ComposeDegradations([GaussianProfile((1, 1, 3)), KSpaceTruncation((2, 2, 1))]), (20, 18, 45)),
]


def make_waves(shape, factors, inside: bool) -> torch.Tensor:
    """Noise of frequencies that the scan samples on all axes, or of those beyond on an axis; periodic, float32."""
    spectrum = np.fft.fftn(np.random.default_rng(0).standard_normal(shape))
    within = True
    for axis, (size, factor) in enumerate(zip(shape, factors, strict=True)):
        k = np.abs(np.fft.fftfreq(size, 1 / size)).reshape([-1 if a == axis else 1 for a in range(3)])
        within = within & ((k < size / factor / 2 - 1e-6) | (factor == 1))
    return torch.from_numpy(np.fft.ifftn(np.where(within == inside, spectrum, 0)).real).float()


@pytest.mark.parametrize(("degradation", "shape"), SCANS, ids=lambda each: type(each).__name__)
def test_nothing_is_added_to_a_bandlimited_volume(degradation, shape):
    volume = 3 + make_waves(shape, degradation.factors, inside=True)
    measured, added = split_measured(volume[None, None], degradation)
    assert added.norm() < 1e-6 * volume.norm()
    torch.testing.assert_close(measured[0, 0] + added[0, 0], volume)


def test_what_lies_beyond_the_measured_k_space_is_added():
    truncation, shape = KSpaceTruncation((2, 2, 3)), (18, 18, 27)  # LR sizes without a sample at the Nyquist frequency
    low, high = (make_waves(shape, truncation.factors, inside) for inside in (True, False))
    torch.testing.assert_close(split_measured(2 + 3 * low + high, truncation)[1], high, atol=1e-5, rtol=0)


@pytest.mark.parametrize("degradation", [GaussianProfile((1, 1, 4)), SLICES], ids=str)
def test_the_scan_does_not_see_what_was_added(degradation):
    volume = torch.from_numpy(phantom(0, (20, 24, 80))).float()
    added = split_measured(volume, degradation)[1]
    assert 0.01 < added.norm() / volume.norm() < 0.3
    assert degradation(added).norm() < 1e-4 * degradation(volume).norm()


def test_tissue_at_the_border_has_no_rim():
    """A field of view that ends in tissue of another brightness: of a smooth volume hardly anything is added."""
    ramp = torch.linspace(1, 3, 48).expand(16, 16, 48)
    for degradation in (GaussianProfile((1, 1, 4)), KSpaceTruncation((1, 1, 2))):
        added = split_measured(ramp, degradation)[1]
        assert added[..., 6:-6].abs().max() < 0.02 and added.norm() < 0.03 * ramp.norm()


def test_what_cannot_be_split_is_refused():
    for degradation in (EllipticalKSpace(), RicianNoise(0.1, seed=0)):
        refused(lambda d=degradation: split_measured(torch.rand(8, 8, 8), d), ValueError, type(degradation).__name__)
    refused(lambda: divide_by_brightness(np.eye(4)), ValueError, "four")


def test_shares_by_class_of_tissue():
    volume = np.repeat([0.0, 10.0, 20.0, 40.0], 8).astype(np.float32)
    classes = divide_by_brightness(volume)
    assert {name: volume[mask].tolist() for name, mask in classes.items()} == {
        name: [value] * 8 for name, value in zip(("air", "dark", "middle", "bright"), (0, 10, 20, 40), strict=True)
    }
    added = np.where(volume == 20, 2, 1) * np.resize([1, -1], 32)
    shares = measure_added_share(volume, added, classes)
    assert shares == pytest.approx({"air": np.nan, "dark": 0.1, "middle": 0.1, "bright": 0.025}, nan_ok=True)
