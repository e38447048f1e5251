"""Scans with guides: which volumes each way to learn reads, and what they become."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec

from common.data.sets import Guided
from common.degradations import GaussianProfile
from common.inferers import CascadeInferer
from common.transforms import StageTargetd
from tests.refused import refused

SCALE = GaussianProfile((2, 2, 1))
HR, LR = (24, 26, 4), (12, 13, 4)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """HR scans with guides, and a further contrast; one of the target group has an LR scan too."""
    folder = tmp_path_factory.mktemp("cohort")

    def save(name, size, spacing):
        seed = int.from_bytes(name.encode(), "big") % 2**32
        volume = 100 + 50 * np.random.default_rng(seed).random(size, dtype=np.float32)
        # The first voxels share their outer corner.
        affine = from_matvec(np.diag(spacing), (np.array(spacing) - (1, 1, 3)) / 2)
        nib.save(nib.Nifti1Image(volume, affine), folder / name)
        return name

    def entry(subject):
        names = {kind: f"sub-{subject}_{name}.nii.gz" for kind, name in (("hr", "t2w"), ("guide", "t1w"))}
        for name in [*names.values(), f"sub-{subject}_pd.nii.gz"]:
            save(name, HR, (1.0, 1.0, 3.0))
        return {**names, "subject": f"sub-{subject}"}

    groups = {
        "source": [entry(0)],
        "target": [entry(1), entry(2)],
        "validation": [entry(3)],
        "test": [entry(4), entry(5)],
    }
    groups["target"][0]["lr"] = save("sub-1_lr.nii.gz", LR, (2.0, 2.0, 3.0))
    (folder / "dataset.json").write_text(json.dumps(groups))
    return folder


def sets_of(cohort, tmp_path, **changes):
    options = {"degradation": SCALE, "hr_patch": 8, "margin": 4, "batch_size": 2, "slice_axis": "SI"}
    return Guided(dataset_dir=str(cohort), output_dir=str(tmp_path), **{**options, **changes})


def names(sets):
    return [[entry["hr"].rsplit("/")[-1][:7], *(key for key in ("lr", "guide") if key in entry)] for entry in sets.data]


class Interpolation(torch.nn.Module):
    """A cascade that leaves the interpolation as it is."""

    def forward(self, image, stage):
        return image[:, :1]


def target():
    return StageTargetd("lr", CascadeInferer(2**0.5, 2), Interpolation(), GaussianProfile((2**0.5, 2**0.5, 1)), "cpu")


def test_from_hr_or_from_the_scans_alone(cohort, tmp_path):
    supervised, alone = sets_of(cohort, tmp_path), sets_of(cohort, tmp_path, target=target())
    assert names(supervised.train) == [["sub-1_t", "guide"], ["sub-2_t", "guide"]]
    assert names(alone.train) == [["sub-1_t", "lr", "guide"], ["sub-2_t", "guide"]]
    for sets, size in ((supervised, HR), (alone, (11, 13, 4))):
        for item in sets.train.items:
            assert {key: tuple(value.shape[1:]) for key, value in item.items()} == {"hr": size, "guide": size}
        assert sets.validation[0].keys() == {"hr", "lr", "guide"} and names(sets.validation) == [["sub-3_t", "guide"]]
        assert names(sets.test) == [["sub-4_t", "guide"], ["sub-5_t", "guide"]]
        assert tuple(sets.test[0]["lr"].shape[1:]) == LR
        assert {key: value.shape[1:3] for key, value in next(iter(sets.batches)).items()} == {
            "hr": (1, 8), "hr_context": (1, 16), "guide": (1, 8)
        }  # fmt: skip
    assert names(sets_of(cohort, tmp_path, group="source").train) == [["sub-0_t", "guide"]]


def test_without_guides_a_batch_has_a_guide_of_no_channel(cohort, tmp_path):
    sets = sets_of(cohort, tmp_path, guided="false")
    assert sets.train.items[0].keys() == {"hr"}
    batch = next(iter(sets.batches))
    assert batch["guide"].shape == (2, 0, 8, 8, 1)
    assert torch.equal(torch.cat([batch["hr"], batch["guide"]], dim=1), batch["hr"])


def test_stages_of_a_cascade(cohort, tmp_path):
    sets = sets_of(cohort, tmp_path, target=target())
    first, later = sets.train, sets.at_stage(2, Interpolation())
    assert sets.train is first and tuple(later.train.items[0]["hr"].shape[1:]) == (17, 17, 4)
    refused(lambda: sets_of(cohort, tmp_path).at_stage(2, None), ValueError, "stage is 2", "--cascade 1")


def test_one_case_pairs_of_contrasts_and_folds(cohort, tmp_path):
    case = sets_of(cohort, tmp_path, target=target(), group="test", case=1)
    assert names(case.train) == names(case.validation) == names(case.test) == [["sub-5_t", "guide"]]
    pairs = sets_of(cohort, tmp_path, group="source", contrasts=[["t2w", "t1w"], ["t1w", "pd"]]).train.data
    assert [[entry[key].rsplit("_")[-1] for key in ("hr", "guide")] for entry in pairs] == [
        ["t2w.nii.gz", "t1w.nii.gz"], ["t1w.nii.gz", "pd.nii.gz"]
    ]  # fmt: skip
    folds = [sets_of(cohort, tmp_path, fold=k) for k in range(5)]
    assert sorted(name for fold in folds for name, *_ in names(fold.test)) == [f"sub-{n}_t" for n in (0, 1, 2, 4, 5)]
    assert len(folds[0].train) == 4 and names(folds[0].validation) == [["sub-3_t", "guide"]]
    empty = tmp_path / "dataset.json"
    groups = json.loads((cohort / "dataset.json").read_text()) | {"validation": []}
    for entry in [entry for group in groups.values() for entry in group]:
        entry.update({key: str(cohort / entry[key]) for key in ("hr", "lr", "guide") if key in entry})
    empty.write_text(json.dumps(groups))
    fold = sets_of(tmp_path, tmp_path, fold=0)
    assert names(fold.validation) == names(fold.train)[:1]
    refused(lambda: sets_of(cohort, tmp_path, degradation=GaussianProfile((2, 2, 2))), ValueError, "scale is (2, 2, 2)")
