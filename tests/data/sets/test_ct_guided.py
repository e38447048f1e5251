"""CT and thick-slice MR: what is drawn from, what is shared, and what is refused."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from common.data.sets import CTGuided
from common.degradations import GaussianProfile
from tests.refused import refused

THICK = GaussianProfile((1, 1, 4))


@pytest.fixture
def options(tmp_path):
    """Of sets over two volumes of 1 mm each as CT and as MR, stored with the slices first."""
    volumes = np.random.default_rng(0).uniform(100, 800, (2, 40, 24, 24)).astype(np.float32)
    for name, volume in zip(("a", "b"), volumes, strict=True):
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / f"sub-{name}.nii")
    listed = {"source": [{"ct": "sub-a.nii", "hr": "sub-a.nii"}], "target": [{"hr": "sub-b.nii"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    own = {"slice_axis": "LR", "lr_patch": [16, 4], "batch_size": 2, "ct_offset": 0, "window": [0, 900]}
    return {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "degradation": THICK, **own}


def test_batches_have_what_is_said_and_volumes_are_loaded_once(options):
    data = CTGuided(**options)
    batch = next(iter(data.batches))
    assert set(batch) == set(data.batch_keys) and batch["lr"].shape == (2, 1, 16, 4)
    assert data.source[0]["hr"].shape == (1, 24, 24, 40) and data.train[0]["lr"].shape == (1, 24, 24, 10)
    assert data.slice_axis == "LR" and not data.validates
    one = data.in_batches(1)
    assert one.source is data.source and one.train is data.train
    assert len(next(iter(one.batches))["lr"]) == 1 and len(next(iter(data.batches))["lr"]) == 2


def test_mr_may_teach_and_weights_for_any_axis_say_so(options):
    for group, subject in (("source", "sub-a"), ("target", "sub-b")):
        data = CTGuided(kind="hr", group=group, any_axis=True, **options)
        assert [entry["subject"] for entry in data.source.data] == [subject]
        # Of MR the brightest voxels are 1, of CT the end of its window.
        assert data.source[0]["hr"].max() >= 1 and data.slice_axis == "auto"


def test_refused(options):
    refused(lambda: CTGuided(**options, kind="lr"), ValueError, "kind is 'lr'", "ct or hr")
    seven = options | {"degradation": GaussianProfile((1, 1, 7))}
    refused(lambda: CTGuided(**seven), ValueError, "7 slices from one", "from 2 to 6")
    network = nn.Identity()
    graph = SimpleNamespace(networks={"judge": network, "other": torch.nn.ReLU()})
    CTGuided(**options).check(graph)
    network.smallest = 32
    refused(lambda: CTGuided(**options).check(graph), ValueError, "16x16 pixels", "at least 32")
