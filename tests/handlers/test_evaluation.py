"""A report runs what it compares as the evaluator runs its own network, and keeps tables of other scans."""

import json
import os
from types import SimpleNamespace

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import nn

from common.degradations import GaussianProfile
from common.handlers import EvaluationReport
from common.networks import GuidedRDN, prepare_for_inference
from common.runtime.precision import Autocast, apply_precision
from common.weights import SavedWeights
from tests.refused import refused


def attached(report, network):
    """An engine that has started with a report, of the scan b.nii."""
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    engine.network, engine.data_loader = network, SimpleNamespace(cases=[{"hr": "b.nii"}])
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
            words = ("a table of other scans", "a.nii", "--output_dir")
            refused(lambda: attached(report, nn.Identity()), FileExistsError, *words)
