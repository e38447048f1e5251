"""How a result that contradicts its scan is found out, and said."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.degradations import BlockAverage, KSpaceTruncation, RicianNoise
from common.inferers import CheckedInferer
from common.metrics import disagreement
from common.transforms import MeasureAgreementd
from tests.bundles.runs import phantom

TRUNCATION, AVERAGE = KSpaceTruncation((2, 2, 1)), BlockAverage((2, 2, 1))


@pytest.fixture(scope="module")
def hr():
    return torch.from_numpy(phantom(3, (24, 20, 8)).astype(np.float32))[None, None]


def test_it_is_the_share_of_tissue_that_is_missed(hr):
    lr = AVERAGE(hr)
    assert disagreement(hr, lr, [AVERAGE]) < 1e-6
    # Brighter by a tenth, and so is what it is degraded to.
    assert disagreement(1.1 * hr, lr, [AVERAGE]) == pytest.approx(0.1, rel=1e-4)
    # Of several operators the one that the scan was made by counts.
    assert disagreement(hr, lr, [TRUNCATION]) > 0.01 and disagreement(hr, lr, [TRUNCATION, AVERAGE]) < 1e-6
    # What lies in air does not.
    air = torch.where(hr > 0.05, hr, 0.04)
    assert disagreement(air, lr, [AVERAGE]) < 0.02


def test_noise_that_the_result_has_not_is_no_contradiction():
    hr = torch.from_numpy(phantom(3, (48, 40, 24)).astype(np.float32))[None, None]
    lr = RicianNoise(0.05)(AVERAGE(hr)[0])[None]
    tissue = AVERAGE(hr) > 0.3
    assert (AVERAGE(hr) - lr)[tissue].std() > 0.045
    assert disagreement(hr, lr, [AVERAGE]) < 0.02
    # What contradicts the scan beside it is seen.
    assert disagreement(1.1 * hr, lr, [AVERAGE]) == pytest.approx(0.1, abs=0.015)


def test_a_result_that_contradicts_its_scan_is_warned_of(hr):
    lr = AVERAGE(hr)
    given = {}

    def inferer(inputs, network, *args):
        given.update(args=args)
        return network(inputs)

    checked = CheckedInferer(inferer, [AVERAGE], highest=0.05)
    with pytest.warns(UserWarning, match=r"^the network contradicts the scan; .* by 10\.0% .* in validation .* 5\.0%"):
        result = checked(lr, lambda _: 1.1 * hr, "guide")
    assert torch.equal(result, 1.1 * hr) and given["args"] == ("guide",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(MetaTensor(lr), lambda _: 1.04 * hr)
        CheckedInferer(inferer, [AVERAGE], highest=None)(lr, lambda _: 2 * hr)


def test_it_is_kept_with_the_result(hr):
    # A network gives a plain tensor.
    entry = {"pred": 1.1 * hr[0], "image": MetaTensor(AVERAGE(hr)[0])}
    found = MeasureAgreementd("pred", "image", AVERAGE)(entry)
    assert found["agreement"] == pytest.approx(0.1, rel=1e-4) and found["pred"] is entry["pred"]
