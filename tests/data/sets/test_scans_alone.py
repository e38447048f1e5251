"""Scans alone: what their images are degraded by, who validates, and which scales and scans are refused."""

import pytest
import torch

from common.data.sets import ScansAlone
from common.degradations import GaussianProfile, ZeroShotImages, as_scanned
from tests.bundles import runs
from tests.refused import refused

THICK = (1, 1, 3)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder, hr = tmp_path_factory.mktemp("alone"), runs.phantom(0, (36, 40, 24))
    lr = runs.save(folder / "sub-0_lr.nii.gz", *runs.degrade(hr, runs.AFFINE, GaussianProfile(THICK)))
    known = [{"hr": runs.save(folder / f"sub-{i}_t1w.nii.gz", hr)} for i in (1, 2, 3)]
    return str(runs.datalist(folder, target=[{"lr": lr}, *known[:2]], test=known[2:]))


def alone(dataset_dir, factors=THICK, **options):
    given = {"degradation": as_scanned(factors), "lr_patch": [12, 12], "batch_size": 4}
    return ScansAlone(dataset_dir=dataset_dir, output_dir="out", **given, **options)


def test_what_is_learned_from_and_who_validates(cohort):
    data = alone(cohort, slice_axis="SI", across_slices="true")
    assert [list(item) for item in data.train.items] == [["lr"]] * 3 and not data.validates
    assert [tuple(item["lr"].shape[1:]) for item in data.train.items] == [(36, 40, 8)] * 3
    batch = next(iter(data.batches))
    assert batch["hr"].shape == batch["lr"].shape == (4, 1, 12, 12) and not torch.equal(batch["hr"], batch["lr"])
    assert len(data.batches.pairs[0]) == 2, "of the planes, either axis last"
    assert {"hr", "lr"} <= data.test[0].keys()
    fold = alone(cohort, slice_axis="SI", folds=2, fold=0)
    assert fold.validates and set(fold.validation[0]) == {"hr", "lr"} and "hr" in fold.validation.data[0]
    assert len(fold.train) + len(fold.test) == 4


def test_images_that_teach(cohort):
    """Across all axes that become finer, at several sizes; the slice axis does not matter where all are alike."""
    data = alone(cohort, (2, 2, 2), image_degradation=ZeroShotImages(as_scanned((2, 2, 2)), scales=(1.0, 0.9)))
    assert data.slice_axis == "SI" and alone(cohort, (2, 2, 1)).slice_axis == "auto"
    images = ZeroShotImages(GaussianProfile(THICK, fwhm=0.7))
    assert images.planes == [2] and images.degradation.fwhm == 0.7, "that across slices is the scan's own"
    assert ZeroShotImages(as_scanned((3, 3, 1))).degradation.factors == (1, 3, 3)


def test_refused(cohort):
    for factors, across, words in (
        ((2, 2, 1), True, "expected [1, 1, n] across slices"),
        ((1, 1, 2.5), True, "n a whole number"),
        ((2, 2, 4), False, "expected [n, n, n], [n, n, 1] or [1, 1, n]"),
    ):
        refused(lambda a=(factors, across): alone(cohort, a[0], across_slices=a[1]), ValueError, words)
    thin = alone(cohort, (1, 1, 1 + 1), slice_axis="LR", across_slices=True)
    refused(lambda: thin.train, ValueError, "sub-0_lr", "no thick slices")
