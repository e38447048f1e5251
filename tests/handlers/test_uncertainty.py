"""Standard errors: the spread over results, what is measured, how errors are fitted, and what is written."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines import IterationEvents

from common.data import Case
from common.data.loaders.slabs import AIR
from common.degradations import KSpaceTruncation
from common.handlers.uncertainty import UncertaintyMap, UncertaintyReport, compute_standard_error, fit_calibration
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
        error = compute_standard_error(spread, scale) * rng.standard_normal(len(spread))
        bins = np.array_split(np.argsort(spread), 20)
        found = fit_calibration(*(np.array([np.mean(v[b] ** 2) for b in bins]) for v in (spread, error)))
        assert found == pytest.approx(scale, abs=0.03 * max(scale))
    torch.testing.assert_close(compute_standard_error(torch.tensor([0.0, 3.0]), [4.0, 5.0]), torch.tensor([5.0, 13.0]))


def test_tissue_alone_is_measured(tmp_path):
    """Air, half of the volume, has other errors than twice the spread."""
    rng = np.random.default_rng(0)
    spread, air = rng.uniform(0.01, 0.1, (20, 20, 20)), np.arange(8000).reshape(20, 20, 20) < 4000
    hr = np.where(air, 0.8 * AIR, 1.2 * AIR)
    error = np.where(air, rng.uniform(0.2, 0.5, spread.shape), 2 * spread * rng.choice([-1, 1], spread.shape))
    label = MetaTensor(hr[None], meta={"filename_or_obj": "a.nii"})

    def step(engine, batch):
        engine.state.output = [{"label": label, "pred": (hr + error)[None]}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    engine.case = Case({})
    inferer = SimpleNamespace(deviation=torch.tensor(spread)[None, None])
    UncertaintyReport(inferer, tmp_path).attach(engine)
    engine.run([0])
    found = json.loads((tmp_path / "uncertainty.json").read_text())
    assert found["scale"] == pytest.approx([2, 0], abs=1e-3) and found["rank_correlation"]["a"] == pytest.approx(1)


def test_refused():
    refused(lambda: axes_inferer(axes=[2]), ValueError, "uncertainty", "[2]", "mirrored False")
    for scale in (None, [-1, 0], [1], 3):
        words = ["--uncertainty_scale", "evaluate_uncertainty.json"] if scale is None else ["uncertainty_scale", scale]
        inferer, operator = axes_inferer(mirrored=True), KSpaceTruncation((2, 2, 2))
        refused(partial(UncertaintyMap, inferer, scale, operator, "out"), ValueError, *words)
    refused(partial(UncertaintyMap, axes_inferer(), [1, 0], operator, "out"), ValueError, "other axes and mirror")
