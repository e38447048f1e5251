"""Evaluation runs what it compares as it runs its own network, and knows its weights by their digest."""

import json
import os
from functools import partial
from types import SimpleNamespace

import torch
from monai.data import Dataset

import common.handlers
from common.degradations import GaussianProfile
from common.engines import Evaluation
from common.networks import GuidedRDN, prepare_for_inference
from common.runtime.precision import Autocast
from common.weights import SavedWeights, digest_of
from tests.refused import refused


def test_a_file_to_compare_with_is_loaded_before_networks_are_prepared(tmp_path, monkeypatch):
    """A prepared network has other weights, into which no file goes."""
    network = GuidedRDN(features=4, blocks=1, layers=1)
    SavedWeights(network, [path := tmp_path / "model.pt"], {}).save()
    tables = []

    class Table(common.handlers.EvaluationReport):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            tables.append(self)

    monkeypatch.setattr(common.handlers, "EvaluationReport", Table)
    options = {"output_dir": tmp_path / "out", "method": "mine", "checkpoint": path, "amp": True}
    options |= {"compare_with": {"other": str(path)}, "prepare": prepare_for_inference}
    data, degradation = SimpleNamespace(test=Dataset([{"hr": "b.nii"}])), GaussianProfile((2, 2, 1))
    begin = partial(Evaluation, torch.device("cpu"), data, network, None, degradation, **options)
    evaluation = begin(digest=digest_of(network.state_dict()))
    other, inferer = tables[0].compare_with["other"]
    assert isinstance(other, Autocast) and other is not evaluation.network and inferer is None
    assert list(other.state_dict()) == list(evaluation.network.state_dict()) != list(network.state_dict())
    refused(lambda: begin(digest="ab"), ValueError, path, "config belongs to other weights")
    # A table of the same scans is replaced, that of others is not.
    (tmp_path / "out").mkdir()
    for name, begins in (("b", True), ("a", False)):
        cost = {"parameters": 1, "seconds": {}, "sources": [os.path.realpath(f"{name}.nii")]}
        (tmp_path / "out" / "cost.json").write_text(json.dumps(cost))
        begin() if begins else refused(begin, FileExistsError, "a table of other scans", "a.nii", "--output_dir")
