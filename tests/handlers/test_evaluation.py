"""A report runs what it compares as the evaluator runs its own network, and keeps tables of other scans."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.transforms import Compose
from torch import nn

from common.degradations import GaussianProfile, KSpaceTruncation
from common.handlers import EvaluationReport
from common.networks import GuidedRDN, prepare_for_inference
from common.runtime.precision import Autocast, apply_precision
from common.transforms import LoadScand, MakeLRd
from common.weights.saving import SavedWeights
from tests.bundles import runs
from tests.refused import refused


def attached(report, network):
    """An engine that has started with a report, of the scan b.nii."""
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    engine.network, engine.inferer = network, None
    engine.data_loader = SimpleNamespace(dataset=SimpleNamespace(data=[{"hr": "b.nii"}]))
    report.attach(engine)
    engine.fire_event(Events.STARTED)
    return engine


def test_a_file_to_compare_with_is_loaded_prepared_and_run_in_the_evaluators_precision(tmp_path):
    network = GuidedRDN(features=4, blocks=1, layers=1).eval()
    SavedWeights(network, [path := tmp_path / "model.pt"], {}).save()
    options = {"network": network, "prepare": prepare_for_inference, "compare_with": {"other": str(path)}}
    for amp in (True, False):
        report = EvaluationReport(tmp_path / "out", GaussianProfile((2, 2, 1)), "mine", **options)
        own = apply_precision(prepare_for_inference(network), torch.device("cpu"), amp, None)
        attached(report, own)
        other, inferer = report.compare_with["other"]
        assert isinstance(other, Autocast) is amp and other is not own and inferer is None
        assert list(other.state_dict()) == list(own.state_dict()) != list(network.state_dict())


def test_a_table_of_the_same_scans_is_replaced_and_that_of_others_is_not(tmp_path):
    report = EvaluationReport(tmp_path, GaussianProfile((2, 2, 1)), "mine")
    for name, begins in (("b", True), ("a", False)):
        cost = {"parameters": 1, "seconds": {}, "sources": [os.path.realpath(f"{name}.nii")]}
        (tmp_path / "cost.json").write_text(json.dumps(cost))
        if begins:
            attached(report, nn.Identity())
        else:
            refused(lambda: attached(report, nn.Identity()), FileExistsError, "a.nii", "--output_dir")


def test_scores_do_not_depend_on_what_scales_the_network_s_input(tmp_path):
    """Weights that learned from volumes scaled by the percentile read such volumes; all scores take it as 1."""
    hr = runs.phantom(0, (24, 24, 24))
    hr[4, 5, 6] = 3 * hr.max()
    path, degradation = runs.save(tmp_path / "b.nii.gz", hr), KSpaceTruncation((2, 2, 2))
    tables = {}
    for scaled_by in ("percentile", "maximum"):
        seen = []

        def double(volume, network, seen=seen):
            seen.append(volume)
            return volume.square().repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)

        others = {"shipped": {"network": nn.Identity(), "inferer": double}}
        report = EvaluationReport(tmp_path / scaled_by, degradation, "mine", compare_with=others)
        engine = attached(report, nn.Identity())
        engine.state.device = torch.device("cpu")
        load = Compose([LoadScand("hr", "SI", scaled_by=scaled_by), MakeLRd("hr", degradation)])
        entry = load({"hr": str(path)})
        lr, label = entry["lr"], entry["hr"]
        assert (label.max() == 1) == (scaled_by == "maximum")
        mine = torch.as_tensor(lr).repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        engine.state.batch, engine.state.output = [{}], [{"image": lr, "label": label, "pred": mine}]
        events = Events.ITERATION_STARTED, IterationEvents.FORWARD_COMPLETED, Events.ITERATION_COMPLETED
        for event in (*events, Events.COMPLETED):
            engine.fire_event(event)
        cases = json.loads((tmp_path / scaled_by / "table.json").read_text())["cases"]
        tables[scaled_by] = seen, {row["method"]: (row["psnr"], row["ssim"]) for row in cases}
    (percentile, scores), (maximum, others) = tables["percentile"], tables["maximum"]
    torch.testing.assert_close(maximum[0], percentile[0], rtol=1e-5, atol=1e-6)
    assert scores.keys() == {"cubic", "shipped", "mine"}
    for method, values in scores.items():
        assert others[method] == pytest.approx(values, abs=1e-4)
