"""DSN + EDSR: where the downsampling network looks, who is trained when and on what."""

from __future__ import annotations

import json

import pytest
import torch

from common.handlers import load_weights
from common.networks import EDSR, DownsamplingNetwork, SlabInterpolation

from . import runs

SMALL = {"features": 4, "blocks": 1, "dsn_blocks": 1, "lr_patch": [12, 12, 1], "batch_size": 2, "slice_axis": "SI"}
SMALL |= {"max_epochs": 1, "epoch_length": 4, "learning_rate": 0.01}


@pytest.mark.parametrize("factor", [2, 3])
def test_downsampling_network(factor):
    """HR that moves by the factor moves LR by a voxel, along both axes."""
    network = DownsamplingNetwork(features=3, blocks=2, factor=factor)
    hr = torch.rand(1, 1, 20 * factor, 24 * factor, 1)
    lr = network(hr)
    assert lr.shape == (1, 1, 20, 24, 1)
    inner = (..., slice(6, -6), slice(6, -6), 0)
    for axis in (2, 3):
        torch.testing.assert_close(network(hr.roll(factor, axis))[inner], lr.roll(1, axis)[inner])
        assert not torch.allclose(network(hr.roll(1, axis))[inner], lr[inner], atol=1e-4)


@pytest.mark.parametrize("bundle", ["dsn"], indirect=True, scope="session")
@pytest.mark.parametrize("waits", [True, False])
def test_edsr_waits_for_the_downsampling_network(cohort, tmp_path, waits):
    """Until then EDSR is the interpolation that it begins as; the downsampling network learns from the start."""
    runs.run("dsn", ["train"], tmp_path, dataset_dir=cohort, dsn_iterations=4 if waits else 0, ckpt_dir=None, **SMALL)
    base = SlabInterpolation(1, (2, 2, 1), offset=(0.5, 0.5, 0.0))
    network = load_weights(EDSR(4, 1, 2, base), tmp_path / "out" / "models" / "model.pt", "cpu")
    lr = torch.rand(1, 1, 12, 12, 1)
    assert torch.equal(network(lr), base(lr)) == waits
    lines = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert any("dsn/downsampling/l1" in str(line) for line in lines)
