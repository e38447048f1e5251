"""Standard errors: the spread over results, what is measured, how errors are fitted, and what is written."""

import numpy as np
import pytest
import torch

from common.degradations import KSpaceTruncation
from common.handlers.uncertainty import UncertaintyMap, fit, standard_error
from common.inferers import AxesInferer


class Results:
    """Stands for an inferer, and gives one result after the other."""

    def __init__(self, results):
        self.results = iter(results)

    def __call__(self, volume, network):
        return next(self.results).clone()


def test_the_spread_is_that_of_what_is_not_measured():
    torch.manual_seed(0)
    axes = [torch.rand(1, 1, 10, 6, 14) for _ in range(3)]  # of LR sizes without a sample at the Nyquist frequency
    turned = [v.permute(0, 1, *(2 + a for a in range(3) if a != i), 2 + i) for i, v in enumerate(axes)]
    inferer = AxesInferer(Results(turned), spread=True)
    mean = inferer(torch.rand(1, 1, 5, 3, 7), None)
    torch.testing.assert_close(mean, torch.stack(axes).mean(dim=0))
    torch.testing.assert_close(inferer.deviation, torch.stack(axes).std(dim=0))
    measured = AxesInferer(Results(turned), spread=True, degradation=KSpaceTruncation((2, 2, 2)))
    measured(torch.rand(1, 1, 5, 3, 7), None)
    beyond = []
    for volume in axes:
        k = torch.fft.fftn(volume.double(), dim=(2, 3, 4))
        for dim, n in zip((2, 3, 4), (5, 3, 7), strict=True):
            keep = (torch.fft.fftfreq(2 * n) * 2 * n).abs() < n / 2
            k = k * keep.view([-1 if d == dim else 1 for d in range(5)])
        beyond.append(volume - torch.fft.ifftn(k, dim=(2, 3, 4)).real)
    torch.testing.assert_close(measured.deviation.double(), torch.stack(beyond).std(dim=0), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"uncertainty is .* axes \[2\] and mirrored False give one"):
        AxesInferer(Results([]), [2], spread=True)
    AxesInferer(Results([]), [2], spread=True, mirrored=True)


def test_a_fit_finds_what_errors_were_made_with():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.001, 0.1, 200_000)
    for scale in ([1.7, 0.01], [0.5, 0.0], [0.0, 0.02]):
        error = standard_error(spread, scale) * rng.standard_normal(len(spread))
        bins = np.array_split(np.argsort(spread), 20)
        found = fit(*(np.array([np.mean(v[b] ** 2) for b in bins]) for v in (spread, error)))
        assert found == pytest.approx(scale, abs=0.03 * max(scale))
    torch.testing.assert_close(standard_error(torch.tensor([0.0, 3.0]), [4.0, 5.0]), torch.tensor([5.0, 13.0]))


@pytest.mark.parametrize(
    ("scale", "message"), [(None, "--uncertainty_scale"), *[(s, "two numbers") for s in ([-1, 0], [1], 3)]]
)
def test_what_is_no_scale(scale, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        UncertaintyMap(AxesInferer(Results([]), spread=True), scale, KSpaceTruncation((2, 2, 2)), tmp_path)
