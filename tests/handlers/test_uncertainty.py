"""Standard errors: the spread over results, what is measured, how errors are fitted, and what is written."""

from functools import partial

import numpy as np
import pytest
import torch

from common.degradations import KSpaceTruncation
from common.handlers.uncertainty import UncertaintyMap, fit, standard_error
from common.inferers import AxesInferer
from tests.refused import refused


def axes_inferer(results=(), axes=(0, 1, 2), **options):
    results = iter(results)
    return AxesInferer(lambda volume, network: next(results).clone(), list(axes), spread=True, **options)


def test_the_spread_is_that_of_what_is_not_measured():
    torch.manual_seed(0)
    axes = [torch.rand(1, 1, 10, 6, 14) for _ in range(3)]  # of LR sizes without a sample at the Nyquist frequency
    turned = [v.permute(0, 1, *(2 + a for a in range(3) if a != i), 2 + i) for i, v in enumerate(axes)]
    inferer, measured = axes_inferer(turned), axes_inferer(turned, degradation=KSpaceTruncation((2, 2, 2)))
    torch.testing.assert_close(inferer(torch.rand(1, 1, 5, 3, 7), None), torch.stack(axes).mean(dim=0))
    torch.testing.assert_close(inferer.deviation, torch.stack(axes).std(dim=0))
    measured(torch.rand(1, 1, 5, 3, 7), None)
    beyond = []
    for volume in axes:
        k = torch.fft.fftn(volume.double(), dim=(2, 3, 4))
        for dim, n in zip((2, 3, 4), (5, 3, 7), strict=True):
            keep = (torch.fft.fftfreq(2 * n) * 2 * n).abs() < n / 2
            k = k * keep.view([-1 if d == dim else 1 for d in range(5)])
        beyond.append(volume - torch.fft.ifftn(k, dim=(2, 3, 4)).real)
    torch.testing.assert_close(measured.deviation.double(), torch.stack(beyond).std(dim=0), atol=1e-5, rtol=0)
    axes_inferer(axes=[2], mirrored=True)


def test_a_fit_finds_what_errors_were_made_with():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.001, 0.1, 200_000)
    for scale in ([1.7, 0.01], [0.5, 0.0], [0.0, 0.02]):
        error = standard_error(spread, scale) * rng.standard_normal(len(spread))
        bins = np.array_split(np.argsort(spread), 20)
        found = fit(*(np.array([np.mean(v[b] ** 2) for b in bins]) for v in (spread, error)))
        assert found == pytest.approx(scale, abs=0.03 * max(scale))
    torch.testing.assert_close(standard_error(torch.tensor([0.0, 3.0]), [4.0, 5.0]), torch.tensor([5.0, 13.0]))


def test_refused():
    refused(lambda: axes_inferer(axes=[2]), ValueError, "uncertainty", "[2]", "mirrored False")
    for scale in (None, [-1, 0], [1], 3):
        words = ["--uncertainty_scale", "evaluate_uncertainty.json"] if scale is None else ["uncertainty_scale", scale]
        inferer, operator = axes_inferer(mirrored=True), KSpaceTruncation((2, 2, 2))
        refused(partial(UncertaintyMap, inferer, scale, operator, "out"), ValueError, *words)
    refused(partial(UncertaintyMap, axes_inferer(), [1, 0], operator, "out"), ValueError, "other axes and mirror")
