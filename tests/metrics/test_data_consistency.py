"""How a result that contradicts its scan is found out, and said."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from common.degradations import GaussianProfile, KSpaceTruncation, RicianNoise
from common.inferers import CheckedInferer
from common.metrics import measure_scan_difference
from tests.bundles.runs import phantom

TRUNCATION, AVERAGE = KSpaceTruncation((2, 2, 1)), GaussianProfile((2, 2, 1))


def pair(*size):
    hr = torch.from_numpy(phantom(3, size).astype(np.float32))[None, None]
    return hr, AVERAGE(hr)


def test_it_is_the_share_of_tissue_that_is_missed():
    hr, lr = pair(24, 20, 8)
    assert measure_scan_difference(hr, lr, [AVERAGE])[1] < 1e-6
    assert measure_scan_difference(1.1 * hr, lr, [AVERAGE])[1] == pytest.approx(0.1, rel=1e-4)
    # Of several operators the one that the scan was made by counts.
    assert measure_scan_difference(hr, lr, [TRUNCATION])[1] > 0.01
    assert measure_scan_difference(hr, lr, [TRUNCATION, AVERAGE])[1] < 1e-6
    air = torch.where(hr > 0.05, hr, 0.04)  # does not count
    assert measure_scan_difference(air, lr, [AVERAGE])[1] < 0.02


def test_noise_that_the_result_has_not_is_no_contradiction():
    hr, clean = pair(48, 40, 24)
    lr = RicianNoise(0.05)(clean[0])[None]
    assert (clean - lr)[clean > 0.3].std() > 0.045
    # The noise is said, and taken out of the second figure.
    tissue = float(lr[lr > 0.3].square().mean().sqrt())
    noisy, beyond = measure_scan_difference(hr, lr, [AVERAGE])
    assert noisy == pytest.approx(0.05 / tissue, rel=0.15) and beyond < 0.02
    assert measure_scan_difference(1.1 * hr, lr, [AVERAGE])[1] == pytest.approx(0.1, abs=0.015)  # beside it


def test_a_result_that_contradicts_its_scan_is_warned_of_and_its_agreement_is_kept():
    hr, lr = pair(24, 20, 8)
    checked, unchecked = (CheckedInferer(SimpleInferer(), [AVERAGE], highest_error=highest) for highest in (0.05, None))
    with pytest.warns(UserWarning, match=r"contradicts the scan.* by 6\.0% .* in validation .* 5\.0%"):
        assert torch.equal(checked(lr, lambda _, gain: gain * hr, 1.06), 1.06 * hr)
    with pytest.warns(UserWarning, match="contradicts the scan.* no finite values"):
        checked(lr, lambda _: torch.nan * hr)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(MetaTensor(lr), lambda _: 1.04 * hr)
        unchecked(lr, lambda _: 2 * hr)
