"""The sets of methods that learn without pairs, and of their supervised counterpart: what is read, made and refused."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.utils import set_determinism

from common.data.sets import SourcePairs, Unpaired, UnpairedInContext
from common.degradations import BandLimit, BlockAverage, KSpaceTruncation
from tests.refused import refused

TWICE = KSpaceTruncation((2, 2, 2))
PATCH = {"lr_patch": [4, 4, 3], "batch_size": 2, "slice_axis": "SI"}


@pytest.fixture
def cohort(tmp_path):
    """Two HR volumes of source, one and an LR scan of target, and one HR volume of each other group."""

    def scan(kind, name, size, spacing=1.0):
        volume = np.random.default_rng(len(name)).random(size).astype(np.float32) + 0.2
        nib.save(nib.Nifti1Image(volume, np.diag([spacing, spacing, spacing, 1])), tmp_path / f"{name}.nii.gz")
        return {kind: f"{name}.nii.gz", "subject": name}

    hr = [scan("hr", "a" * n, (21, 20, 18)) for n in range(1, 6)]
    groups = {"source": hr[:2], "target": [hr[2], scan("lr", "lr", (10, 10, 9), 2.0)]}
    groups |= {"validation": [hr[3]], "test": [hr[4]]}
    (tmp_path / "dataset.json").write_text(json.dumps(groups))
    return str(tmp_path)


def sets(kind, cohort, degradation=TWICE, **options):
    return kind(dataset_dir=cohort, output_dir="out", degradation=degradation, **{**PATCH, **options})


def test_lr_of_target_validation_and_test_is_as_scanned_and_that_of_the_source_as_known(cohort):
    scanned = BlockAverage((2, 2, 2))
    data = sets(Unpaired, cohort, scanned, paired=True)
    assert data.scale == [2, 2, 2] and data.offset == [0.5] * 3 and data.slice_axis == "SI"
    assert next(iter(data.batches)).keys() == {"hr", "lr", "lr_source", "turn", "lr_turn"}
    for volume in (*data.train.items, *data.validation.items, data.test[0]):
        torch.testing.assert_close(torch.as_tensor(volume["lr"]), scanned(torch.as_tensor(volume["hr"])))
    assert [tuple(item["lr"].shape[1:]) for item in data.target.items] == [(10, 10, 9)] * 2
    scans = sets(Unpaired, cohort, scan_degradation=KSpaceTruncation((2, 2, 2)))
    torch.testing.assert_close(scans.target[0]["lr"], TWICE(data_hr(cohort)), atol=1e-5, rtol=1e-4)
    assert scans.train[0].keys() == {"hr"}
    refused(lambda: sets(Unpaired, cohort, scan_degradation=scanned).target, ValueError, "scan_degradation")


def data_hr(cohort):
    """HR of the target's first scan, as it is read."""
    return torch.as_tensor(sets(Unpaired, cohort).load({"hr": f"{cohort}/aaa.nii.gz"})["hr"])


def test_what_does_not_suit_the_degradation_or_the_cohort_is_refused(cohort):
    refused(lambda: sets(Unpaired, cohort, KSpaceTruncation((2, 2, 1))).train, ValueError, "Set scale", "lr.nii.gz")
    for kind in (Unpaired, SourcePairs):
        refused(lambda kind=kind: sets(kind, cohort, misaligned="True").train, ValueError, "not of a misaligned cohort")
    for kind, options in ((UnpairedInContext, {"margin": 2}), (SourcePairs, {})):
        refused(lambda kind=kind, o=options: sets(kind, cohort, paired="true", **o), ValueError, "paired is true")


def test_context_is_the_band_of_lr_and_noise_is_measured_or_given(cohort):
    data = sets(UnpairedInContext, cohort, margin=2, noise_levels=[0.02], training_noise=[0.0])
    for item in data.train.items:
        torch.testing.assert_close(item["hr_band"], BandLimit((2, 2, 2))(item["hr"]))
    batch = next(iter(data.batches))
    assert batch["noise"].std() > 0.005 and not batch["training_noise"].any()
    assert batch["hr_context"].shape[2:] == (12, 12, 10)
    selected = sets(UnpairedInContext, cohort, margin=2, fourier_encoded=["true", "true", "false"])
    with pytest.warns(UserWarning, match="show no air"):
        assert selected.batches.noise_levels == [0.0, 0.0]  # as these scans do not show it
    torch.testing.assert_close(selected.train[0]["hr_band"], BandLimit((2, 2, 1))(selected.train[0]["hr"]))


@pytest.mark.parametrize("kind", [UnpairedInContext, SourcePairs])
def test_slabs_are_cut_across_any_axis_where_the_axes_are_alike(cohort, kind):
    options = {"margin": 2} if kind is UnpairedInContext else {}
    for factors, changes, turns in (
        ((2, 2, 2), {}, 3),
        ((2, 2, 2), {"any_axis": "False"}, 1),
        ((2, 2, 2), {"fourier_encoded": [True, True, False]}, 1),
        ((2, 2, 1), {}, 1),
    ):
        data = sets(kind, cohort, KSpaceTruncation(factors), **options, **changes)
        assert (data.turns, data.any_axis) == (turns, turns == 3)
    changes = {"any_axis": True, "fourier_encoded": [True, True, False]}
    refused(lambda: sets(kind, cohort, **options, **changes), ValueError, "not encoded alike")


def test_pairs_are_mirrored_before_they_are_degraded(cohort, tmp_path):
    known = BlockAverage((2, 2, 2))
    set_determinism(0)
    data = sets(SourcePairs, cohort, source_degradation=known, copies=4)
    assert len(data.train) == 8 and next(iter(data.batches)).keys() == {"hr", "lr", "turn"}
    for item in data.train.items:
        torch.testing.assert_close(item["lr"], known(item["hr"]))
    assert len({item["hr"].numpy().tobytes() for item in data.train.items[:4]}) > 1
    set_determinism(None)
    # A pair of its own is taken once, as it is.
    groups = json.loads((tmp_path / "dataset.json").read_text())
    groups["source"] = [{"hr": "a.nii.gz", "lr": "lr.nii.gz", "subject": "a"}]
    (tmp_path / "dataset.json").write_text(json.dumps(groups))
    (pair,) = sets(SourcePairs, cohort).train.items
    torch.testing.assert_close(pair["lr"], sets(Unpaired, cohort).target[1]["lr"])
