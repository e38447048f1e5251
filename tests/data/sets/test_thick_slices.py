"""Thick slices: images of HR volumes, and three slices in a row of LR ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.sets import HRImages, Triplets
from common.degradations import GaussianProfile, Interpolated
from tests.bundles import runs
from tests.refused import refused

THICK, THICKER = GaussianProfile((1, 1, 4)), GaussianProfile((1, 1, 4), fwhm=1.5)
ISOTROPIC = np.eye(4)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thick")
    volumes = [runs.phantom(i, (24, 20, 24)) for i in range(4)]
    hr = [{"hr": runs.save(folder / f"sub-{i}_t1w.nii.gz", volume, ISOTROPIC)} for i, volume in enumerate(volumes)]
    lr = {"lr": runs.save(folder / "sub-4_t1w.nii.gz", *runs.degrade(runs.phantom(4, (24, 20, 24)), ISOTROPIC, THICK))}
    return str(runs.datalist(folder, source=hr[:1], target=[lr, hr[1]], validation=hr[2:3], test=hr[3:]))


def sets(kind, dataset_dir, degradation=THICK, lr_patch=(8, 4), **options):
    required = {"output_dir": "out", "degradation": degradation, "lr_patch": lr_patch, "batch_size": 4}
    return kind(dataset_dir=dataset_dir, slice_axis="SI", **required, **options)


def subjects(volumes):
    return [entry["subject"] for entry in volumes.data]


def test_images_are_those_of_hr_and_what_is_left_of_them(cohort):
    data = sets(HRImages, cohort, lr_patch=(8, 8), scan_degradation=THICKER)
    assert [subjects(volumes) for volumes in (data.train, data.validation, data.test)] == [
        ["sub-0"],
        ["sub-2"],
        ["sub-3"],
    ]
    assert list(data.train[0]) == ["hr"] and list(data.validation[0]) == ["hr", "lr"]
    refused(lambda: sets(HRImages, cohort, group="target").train, ValueError, "no hr for sub-4")
    assert {key: tuple(batch.shape) for key, batch in next(iter(data.batches)).items()} == dict.fromkeys(
        ("hr", "lr"), (4, 1, 8, 8)
    )
    (pairs,) = data.batches.pairs
    expected = Interpolated(THICKER)(data.train[0]["hr"])[0]
    assert len(pairs) == 4, "images in two directions, either axis the last"
    torch.testing.assert_close(pairs[0].lr[:, 0], expected)
    assert len(sets(HRImages, cohort, lr_patch=(8, 8), planes=[0]).batches.pairs[0]) == 2
    torch.testing.assert_close(data.test[0]["lr"], THICKER(data.test[0]["hr"]), atol=1e-2, rtol=0)


def test_triplets_are_those_of_lr_alone(cohort):
    data = sets(Triplets, cohort)
    assert subjects(data.train) == ["sub-4", "sub-1"] and list(data.train[0]) == ["lr"]
    assert data.batches.reach == 2 and sets(Triplets, cohort, reach=1).batches.reach == 1
    batch = next(iter(data.batches))
    assert {key: tuple(images.shape[2:]) for key, images in batch.items()} == {
        **dict.fromkeys(("above", "slice", "below"), (8, 8)), **dict.fromkeys(("first", "second", "third"), (8, 4))
    }  # fmt: skip
    assert data.validates and subjects(data.validation) == ["sub-2"]


def test_without_a_validation_group(cohort, tmp_path):
    """Triplets have none then, or of a fold a scan that trains and whose HR is known; images need one."""
    entries = {
        group: json.loads(Path(cohort, "dataset.json").read_text())[group] for group in ("source", "target", "test")
    }
    alone = str(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    assert not sets(Triplets, alone).validates
    fold = sets(Triplets, alone, folds=3, fold=0)
    assert fold.validates and subjects(fold.validation)[0] in subjects(fold.train) and "sub-4" in subjects(fold.train)
    refused(lambda: sets(HRImages, alone).validation, ValueError, "validation")


def test_refused(cohort):
    in_plane, finer = GaussianProfile((2, 2, 1)), GaussianProfile((1, 1, 8))
    refused(lambda: sets(Triplets, cohort, in_plane), ValueError, "scale is [2, 2, 1]", "[1, 1, n]")
    refused(lambda: sets(Triplets, cohort, finer).train, ValueError, "finer than the plane")
