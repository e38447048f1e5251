"""Pairs in plane: what is read of which group, and what is done to it."""

import numpy as np
import pytest
import torch

from common.data.sets import Pairs, base
from common.degradations import BlockAverage, ComposeDegradations, GaussianProfile, KSpaceTruncation, RicianNoise
from tests.bundles import runs
from tests.refused import refused

TWICE = (2, 2, 1)
PROFILE, NOISY = GaussianProfile(TWICE), ComposeDegradations([GaussianProfile(TWICE), RicianNoise(0.05, seed=1)])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    hr = [runs.save(folder / f"sub-{i}_t1w.nii.gz", runs.phantom(i, (24, 26, 10))) for i in range(5)]
    lr = runs.degrade(runs.phantom(0, (24, 26, 10)), runs.AFFINE, BlockAverage(TWICE))
    known = {"hr": hr[0], "lr": runs.save(folder / "sub-0_lr.nii.gz", *lr)}
    source, target, validation, test = [known, {"hr": hr[1]}], [{"hr": hr[2]}], [{"hr": hr[3]}], [{"hr": hr[4]}]
    return str(runs.datalist(folder, source=source, target=target, validation=validation, test=test))


def pairs(dataset_dir, degradation=PROFILE, **options):
    given = {"degradation": degradation, "lr_patch": [6, 6, 1], "batch_size": 4, "slice_axis": "SI"}
    return Pairs(dataset_dir=dataset_dir, output_dir="out", **given, **options)


def subjects(volumes):
    return {entry["subject"] for entry in volumes.data}


def test_groups_and_folds(cohort):
    data = pairs(cohort)
    assert [subjects(volumes) for volumes in (data.train, data.validation, data.test)] == [
        {"sub-0", "sub-1"}, {"sub-3"}, {"sub-4"}
    ]  # fmt: skip
    assert subjects(pairs(cohort, group="target").train) == {"sub-2"}
    fold = pairs(cohort, folds=2, fold=1)
    assert subjects(fold.train) | subjects(fold.test) == {"sub-0", "sub-1", "sub-2", "sub-4"}
    assert subjects(fold.train).isdisjoint(subjects(fold.test)) and subjects(fold.validation) == {"sub-3"}
    (batch,) = (batch for batch, _ in zip(data.batches, range(1), strict=False))
    assert batch["hr"].shape == (4, 1, 12, 12, 1) and batch["lr"].shape == (4, 1, 6, 6, 1) and "chance" not in batch
    assert next(iter(pairs(cohort, chance="true").batches))["chance"].shape == (4, 1)


def test_lr_is_made_where_it_is_not_there_and_only_what_is_learned_from_is_denoised(cohort):
    data, denoised = (pairs(cohort, scan_degradation=NOISY, denoise=denoise) for denoise in (False, True))
    for own, filtered, change in ((data.train[1], denoised.train[1], True), (data.test[0], denoised.test[0], False)):
        torch.testing.assert_close(own["lr"], NOISY(own["hr"]).abs(), atol=1e-2, rtol=0)
        assert torch.equal(own["hr"], filtered["hr"]) and torch.equal(own["lr"], filtered["lr"]) != change
    assert not np.allclose(data.train[0]["lr"], NOISY(data.train[0]["hr"]), atol=1e-2), "what is there is taken"
    steps = [type(step).__name__ for step in pairs(cohort, register=True, denoise=True).load_training.transforms]
    assert steps == ["LoadScand", "RegisterLRd", "MakeLRd", "DenoiseSlicesd"]


@pytest.mark.parametrize(
    ("degradation", "scan_degradation", "turned"),
    [(PROFILE, None, True), (KSpaceTruncation(TWICE), None, False), (PROFILE, NOISY, False)],
)
def test_pairs_are_turned_where_that_is_right(cohort, degradation, scan_degradation, turned):
    options = {"scan_degradation": scan_degradation, "group": "target"}
    assert pairs(cohort, degradation, turned="true", **options).batches.turned is turned
    assert pairs(cohort, degradation, **options).batches.turned is False


def test_what_is_simulated_is_set_key_by_key(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "simulated_cohort", lambda folder, **options: {"folder": folder, **options})
    found = pairs(None, simulated={"spacing": 3}).dataset_dir
    assert found == {"folder": "out/data", **Pairs.SIMULATED, "spacing": 3}


def test_refused(cohort):
    refused(lambda: pairs(cohort, GaussianProfile((1, 1, 2))), ValueError, "scale is [1, 1, 2]", "[n, n, 1]")
