"""``python -m common datalist``: which volume serves in which group, and what cannot be divided."""

import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.lists.datalist import GROUPS, load_datalist
from common.degradations import GaussianProfile
from common.program.datalist.alike import guess_persons
from common.program.datalist.assignment import write_datalist
from common.transforms import LoadScand, MakeLRd
from tests.bundles import runs
from tests.bundles.runs import ROOT
from tests.program.exams.test_scans import touch
from tests.refused import refused


def _bids(root, count, contrasts=("t1w",), others=()):
    subjects = [*(f"{i:03d}" for i in range(1, count + 1)), *others]
    touch(root, *[f"sub-{subject}/sub-{subject}_{c}.nii.gz" for subject in subjects for c in contrasts])


def _written(root, **options):
    """The datalist that the command writes, and the subjects of each group."""
    write_datalist(str(root), **options)
    data = json.loads((root / "dataset.json").read_text())
    return data, {group: {entry["subject"] for entry in data[group]} for group in GROUPS}


@pytest.mark.parametrize("count", [4, 7, 40])
def test_subjects_never_cross(tmp_path, count):
    """Two scans per subject, ten seeds: every subject is in one group, with both scans, and every group has one."""
    _bids(tmp_path, count, ("t1w", "run2_t1w"))
    splits = set()
    for seed in range(10):
        data, groups = _written(tmp_path, hr="*/*_t1w.nii.gz", split=(0.4, 0.4, 0.1, 0.1), seed=seed)
        assert all(groups.values()) and sum(map(len, groups.values())) == len(set().union(*groups.values())) == count
        assert sum(len(data[group]) for group in GROUPS) == 2 * count
        assert all(set(entry) == {"hr", "subject"} for group in GROUPS for entry in data[group])
        splits.add(json.dumps(data))
        assert _written(tmp_path, hr="*/*_t1w.nii.gz", split="0.4,0.4,0.1,0.1", seed=seed)[0] == data
    assert len(splits) > 5
    if count == 40:
        assert [len(groups[group]) for group in GROUPS] == [16, 16, 4, 4]


def test_misaligned_subjects_coincide(tmp_path):
    _bids(tmp_path, 9)
    for seed in range(10):
        data, groups = _written(tmp_path, hr="*/*.nii.gz", misaligned=True, seed=seed)
        assert groups["source"] == groups["target"] and data["source"] == data["target"]
        assert not groups["source"] & (groups["validation"] | groups["test"])
        assert not groups["validation"] & groups["test"] and groups["validation"] and groups["test"]
        assert sum(len(groups[group]) for group in GROUPS if group != "target") == 9


def test_pairs_stand_in_source(tmp_path):
    """Where HR and LR are in register both train, drawn or by hand; who has one of them is left out."""
    touch(tmp_path, *[f"sub-{i}_{kind}.nii.gz" for i in range(6) for kind in ("hr", "lr")], "sub-6_hr.nii.gz")
    for by_hand in ({}, {"source": "sub-[0-3]*", "validation": "sub-4*", "test": "sub-5*"}):
        data, groups = _written(tmp_path, hr="*_hr.nii.gz", lr="*_lr.nii.gz", paired=True, **by_hand)
        assert [len(groups[group]) for group in GROUPS] == [4, 0, 1, 1] and "misaligned" not in data
        assert all({"hr", "lr"} <= set(entry) for group in GROUPS for entry in data[group])


def test_the_patterns_of_the_configs_divide_the_subjects_of_their_simulated_cohorts(tmp_path):
    for path in ROOT.glob("bundles/*/configs/*.json"):
        config = json.loads(path.read_text())
        simulated = config.get("dataset_dir")
        if isinstance(simulated, dict) and {"subjects", "contrasts", "datalist"} <= simulated.keys():
            folder = tmp_path / path.parts[-3] / path.stem
            others = [f"body{i + 1:03d}" for i in range(simulated.get("bodies", 0))] + ["scan001"] * (
                "scans" in simulated
            )
            _bids(folder, simulated["subjects"], simulated["contrasts"].split(","), others)
            groups = _written(folder, **simulated["datalist"])[1]
            needed = "validation" if path.with_name("train.json").is_file() else "test"
            assert groups[needed] and sum(map(len, groups.values())) == len(set().union(*groups.values())), path
    assert len([*tmp_path.iterdir()]) == len([*ROOT.glob("bundles/*/configs/demo.json")])


def test_authentic_lr(tmp_path):
    """LR scans of other people, of some of the HR people, of all of them: each volume where it can serve."""
    touch(tmp_path, *[f"hr/h{i}.nii.gz" for i in range(6)], *[f"lr/l{i}.nii.gz" for i in range(4)])
    every = {"hr": "hr/*.nii.gz", "lr": "lr/*.nii.gz"}
    for seed in range(5):
        data, groups = _written(tmp_path, **every, seed=seed)
        assert groups["target"] == {"l0", "l1", "l2", "l3"} and all("lr" in entry for entry in data["target"])
        assert groups["source"] | groups["validation"] | groups["test"] == {f"h{i}" for i in range(6)}
    _, groups = _written(tmp_path, **every, split=(1, 0, 0, 1))
    assert [len(members) for members in groups.values()] == [3, 0, 0, 3]
    touch(tmp_path, "lr/h2.nii.gz", "lr/h5.nii.gz")
    data, groups = _written(tmp_path, **every)
    assert groups["validation"] | groups["test"] == {"h2", "h5"}
    assert {"hr", "lr"} <= set(data["validation"][0]) and {"hr", "lr"} <= set(data["test"][0])
    assert _written(tmp_path, hr="hr/h*.nii.gz", lr="lr/h*.nii.gz,lr/l0.nii.gz")[1]["target"] == {"l0"}
    touch(tmp_path, *[f"lr/h{i}.nii.gz" for i in range(6)])
    for misaligned in (False, True):
        data, groups = _written(tmp_path, hr="hr/h*.nii.gz", lr="lr/h*.nii.gz", misaligned=misaligned)
        assert all("lr" not in entry for entry in data["source"]) and all("hr" not in entry for entry in data["target"])
        assert (groups["source"] == groups["target"]) == misaligned
        assert all({"hr", "lr"} <= set(entry) for entry in data["validation"] + data["test"])


HAND = [f"{name}_{run}.nii.gz" for name in "abcd" for run in (1, 2)]
BY_HAND = {"subject": r"^(\w)_", "source": "a_*", "target": "b_*", "validation": "c_1.nii.gz", "test": "d_*"}
EVERY_KIND = {kind: f"{kind}/*" for kind in ("hr", "lr", "guide", "ct")}
KINDS = [f"{kind}/{name}.nii" for kind in EVERY_KIND for name in "abcde"]
SOME = {**EVERY_KIND, "source": "*/a.nii,ct/b.nii", "target": "*/b.nii", "validation": "lr/c.nii", "test": "*/d.nii"}


def test_groups_by_hand_and_subject_expression(tmp_path):
    """A failed command leaves the file of the last good one."""
    touch(tmp_path, *HAND)
    data, groups = _written(tmp_path, hr="*.nii.gz", **BY_HAND)
    assert groups == {"source": {"a"}, "target": {"b"}, "validation": {"c"}, "test": {"d"}}
    assert [entry["hr"] for entry in data["validation"]] == ["c_1.nii.gz"]
    text = (tmp_path / "dataset.json").read_text()
    shared = {**BY_HAND, "hr": "*.nii.gz", "target": "a_2*"}
    refused(lambda: _written(tmp_path, **shared), ValueError, "subjects a", "source", "target")
    refused(lambda: _written(tmp_path, hr="*_3.nii.gz"), FileNotFoundError, "--hr", "*_3")
    assert (tmp_path / "dataset.json").read_text() == text
    _written(tmp_path, misaligned=True, **shared)
    assert load_datalist(str(tmp_path), "target")[0]["subject"] == load_datalist(str(tmp_path), "source")[0]["subject"]


def test_every_kind_by_hand(tmp_path):
    touch(tmp_path, *KINDS)

    def entry(name, *kinds):
        return {**{kind: f"{kind}/{name}.nii" for kind in kinds}, "subject": name}

    assert _written(tmp_path, **SOME)[0] == {
        "source": [entry("a", "hr", "guide", "ct"), entry("b", "ct")],
        "target": [entry("b", "lr", "guide")],
        "validation": [entry("c", "lr", "guide")],
        "test": [entry("d", "hr", "lr", "guide")],
    }
    # The test group alone, to evaluate weights that are there: nobody trains, so the other groups stay empty.
    _, groups = _written(tmp_path, hr="hr/*", test="*/[ab].nii")
    assert groups.pop("test") == {"a", "b"} and not any(groups.values())
    found = [entry["hr"] for entry in load_datalist(str(tmp_path), "test")]
    assert found == [str(tmp_path / f"hr/{name}.nii") for name in "ab"]


BIDS = [f"sub-00{i}/sub-00{i}_t1w.nii.gz" for i in (1, 2, 3)]
TWO_RUNS = [f"{kind}/sub-{i}{run}.nii" for i in range(4) for kind, run in (("hr", ""), ("hr", "_2"), ("lr", ""))]
GUIDED = [*[f"sub-00{i}.nii" for i in (1, 2, 3, 4)], *[f"g/sub-00{i}.nii" for i in (1, 2, 4)]]
FEW_HR = [*[f"sub-0{i}_lr.nii" for i in range(10)], "hr/sub-03.nii", "hr/sub-07.nii"]
NIFTI, GUIDES, PAIRED = {"hr": "*/*.nii.gz"}, {"lr": "*.nii", "guide": "g/*"}, {"hr": "*_1*", "lr": "*_2*"}


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (BIDS, {}, ["no --hr and no --lr"]),
        (BIDS, {**NIFTI, "lr": "*/*-001*"}, ["sub-001_t1w.nii.gz", "--hr and --lr"]),
        (BIDS, {**NIFTI, "ct": "*/*.nii.gz"}, ["--hr and --ct", "exclusive"]),
        (BIDS, {**NIFTI, "split": (0.8, 0.1, 0.1)}, ["--split", "4 numbers", "source, target"]),
        (BIDS, {**NIFTI, "split": "a,b,c,d"}, ["--split a,b,c,d"]),
        (BIDS, {**NIFTI, "split": (1, 1, -1, 1)}, ["--split"]),
        (BIDS, {**NIFTI, "split": "0,0,0,0"}, ["--split", "not all 0"]),
        (BIDS, {**NIFTI, "subject": "case-(.*)"}, ["--subject", "sub-001_t1w"]),
        (BIDS, NIFTI, ["3 subjects with HR", "(sub-001, sub-002, sub-003)", "at least 4", "--split"]),
        (BIDS, {"lr": "sub-001/*.nii.gz"}, ["1 subjects with LR", "target, validation."]),
        (BIDS, {"hr": "*1/*", "lr": "*2/*", "misaligned": True}, ["0 subjects with HR and LR", "(none)"]),
        (FEW_HR, {"hr": "hr/*", "lr": "*_lr.nii"}, ["2 subjects with HR and LR", "source, validation, test"]),
        (BIDS, {"hr": "/data/*.nii.gz"}, ["/data/*.nii.gz", "relative"]),
        (BIDS, {"hr": "*1/*,*2/*", "guide": "*3/*", "subject": "s"}, ["--hr", "several volumes of s (sub-001"]),
        (BIDS, {"lr": "*/*", "test": "*/*"}, ["test", "HR", "sub-001, sub-002, sub-003"]),
        (HAND, {**PAIRED, "paired": True, "misaligned": True}, ["--paired", "--misaligned"]),
        (HAND, {"hr": "*_1*", "paired": True}, ["--paired", "--lr"]),
        (HAND, {"lr": "*_2*", "paired": True}, ["--paired", "--hr"]),
        (HAND, {**BY_HAND, "hr": "[b-d]*.nii.gz", "lr": "a*.nii.gz"}, ["group source", "--hr or --ct"]),
        (KINDS, {**SOME, "test": "lr/d.nii"}, ["test", "HR", "of d: "]),
        (KINDS, {**SOME, "target": None, "validation": "hr/b.nii"}, ["subjects b", "source", "validation"]),
        (KINDS, {**SOME, "target": "ct/b.nii"}, ["group target"]),
        (KINDS, {**SOME, "source": "hr/a.nii"}, ["none of the CT"]),
        # Which of two HR volumes an LR one belongs to is not known, so that it cannot be tested on.
        (TWO_RUNS, {"hr": "hr/*", "lr": "lr/*"}, ["LR volumes without it of sub-"]),
        (GUIDED, GUIDES, ["4 scans but 3 guides", "without a guide: sub-003.", "--subject"]),
        ([*GUIDED, "g/sub-009.nii"], GUIDES, ["4 scans and 4", "a guide: sub-003", "without a scan: sub-009."]),
        ([*GUIDED, "g/sub-001_2.nii"], GUIDES, ["--guide", "sub-001 (g/sub-001.nii, g/sub-001_2"]),
    ],
)
def test_refused(tmp_path, paths, options, words):
    touch(tmp_path, *paths)
    refused(lambda: _written(tmp_path, **options), ValueError, *words)
    assert not (tmp_path / "dataset.json").exists() and not list(tmp_path.glob(".*"))


def test_splits_of_seed_0_stay(tmp_path):
    """Figures were measured with them."""
    for count, split, guide, expected in (
        (16, (7, 6, 1, 2), None, ["1 3 4 5 8 11 12", "6 7 10 13 14 15", "9", "2 16"]),
        (12, (4, 4, 1, 3), None, ["3 5 8 10", "1 4 6 12", "7", "2 9 11"]),
        (10, (0, 7, 1, 2), "*/*_t2w.nii.gz", ["", "3 4 5 6 7 8 10", "1", "2 9"]),
    ):
        _bids(tmp_path / str(count), count, ("t1w", "t2w"))
        data, _ = _written(tmp_path / str(count), hr="*/*_t1w.nii.gz", guide=guide, split=split)
        assert [" ".join(str(int(entry["subject"][-3:])) for entry in data[group]) for group in GROUPS] == expected
        assert all(("guide" in entry) == bool(guide) for group in GROUPS for entry in data[group])


def test_one_file_for_every_method(tmp_path):
    """T1w, T2w and CT of ten subjects: HR with a guide in every group, and the CT of who is not evaluated in source."""
    _bids(tmp_path, 10, ("t1w", "t2w", "ct"))
    patterns = {"hr": "*/*_t2w.nii.gz", "guide": "*/*_t1w.nii.gz", "ct": "*/*_ct.nii.gz"}
    _, groups = _written(tmp_path, **patterns)
    assert [len({e["subject"] for e in load_datalist(str(tmp_path), g, "hr")}) for g in GROUPS] == [4, 4, 1, 1]
    assert groups["source"] >= groups["target"] and not groups["source"] & (groups["validation"] | groups["test"])
    assert {e["subject"] for e in load_datalist(str(tmp_path), "source", "ct")} == groups["source"]
    for group in GROUPS:
        assert load_datalist(str(tmp_path), group, ("hr", "guide"), needs="guide" if group != "source" else None)
    both = [e for e in load_datalist(str(tmp_path), "source", ("hr", "guide", "ct")) if "hr" in e]
    assert both and all(e[kind].endswith(f"{e['subject']}{patterns[kind][3:]}") for e in both for kind in patterns)


def test_lr_without_hr_or_with_hr_of_few(tmp_path):
    """For the guided method target and validation share the LR scans; beside CT all of them are to learn from."""
    _bids(tmp_path, 10, ("lr", "t1w", "ct"))
    touch(tmp_path, *[f"ct/c{i}.nii" for i in range(3)])
    for options, sizes in (
        ({}, [0, 9, 1, 0]),
        ({"split": "4,6,9,9"}, [0, 5, 5, 0]),
        ({"ct": "ct/*"}, [3, 9, 1, 0]),
        ({"ct": "ct/*", "guide": None}, [3, 10, 0, 0]),
        ({"guide": None}, [0, 9, 1, 0]),
    ):
        options = {"lr": "*/*_lr.nii.gz", "guide": "*/*_t1w.nii.gz", **options}
        data, groups = _written(tmp_path, **options)
        assert [len(groups[group]) for group in GROUPS] == sizes
        learned = data["target"] + data["validation"]
        assert all("lr" in entry and ("guide" in entry) == bool(options["guide"]) for entry in learned)
    # Guides or CT and LR scans of ten, HR of two: these are evaluated on, and source goes without HR.
    touch(tmp_path, "hr/sub-003.nii.gz", "hr/sub-007.nii.gz")
    for options in ({"guide": "*/*_t1w.nii.gz"}, {"ct": "*/*_ct.nii.gz"}, {"split": (0, 8, 1, 1)}):
        data, groups = _written(tmp_path, hr="hr/*", lr="*/*_lr.nii.gz", **options)
        assert len(groups["target"]) == 8 and groups["validation"] | groups["test"] == {"sub-003", "sub-007"}
        assert all({"hr", "lr"} <= set(entry) for entry in data["validation"] + data["test"])
        assert groups["source"] == (groups["target"] if "ct" in options else set())
        assert all(set(entry) == {"ct", "subject"} for entry in data["source"])


def test_what_cannot_be_read_is_an_error_and_what_is_no_scan_is_said(tmp_path, capsys):
    """Data to learn from never shrink without a word; CT is a scan where CT is asked for."""
    _bids(tmp_path, 4, ("t1w", "ct", "mask"))
    names = ["a.png", "a.mnc", "a.nii", "empty.nii", "tissues.nii"]
    touch(tmp_path / "other", *names[:2], "a.json", "dwi.bval")
    (tmp_path / "other" / "a.nii").symlink_to("../.git/annex/objects/a")
    (tmp_path / "other" / "empty.nii").write_bytes(b"")
    tissues = np.kron(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.ones((4, 4, 4), np.int16))
    nib.save(nib.Nifti1Image(tissues, np.eye(4)), tmp_path / "other" / "tissues.nii")
    words = ["--hr", "5 of 13 files", *(f"other/{name}: " for name in names), "narrow"]
    refused(lambda: _written(tmp_path, hr="*/*t1w.nii.gz,other/*,*/*mask*"), ValueError, *words)
    refused(lambda: _written(tmp_path, hr="*/*_mask.nii.gz"), ValueError, "--hr matches no scan", "sub-001_mask")
    refused(lambda: _written(tmp_path, hr="*/*.json"), ValueError, "--hr matches no scan", "other/a.json")
    capsys.readouterr()
    data, _ = _written(tmp_path, hr="sub*/*t1w*,sub*/*mask*,sub*/*ct*", split=(1, 1, 1, 1))
    assert sum(len(data[group]) for group in GROUPS) == 4 and capsys.readouterr().out.count("passed over: sub-") == 8
    assert _written(tmp_path, hr="sub*/*t1w*", ct="sub*/*_ct*")[0]["source"]
    for name, kind in (("other/a.mnc", ValueError), ("other/a.nii", FileNotFoundError)):
        (tmp_path / "dataset.json").write_text(json.dumps({"source": [{"hr": name, "subject": "a"}]}))
        refused(lambda: load_datalist(str(tmp_path), "source"), kind, "dataset.json: 1 listed", name)


def _asked(root, capsys, names, grids):
    """What the command warns of scans with these names and grids, and the subjects by the --subject that it gives."""
    for name, grid in zip(names, grids, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        affine = nib.affines.from_matvec(np.eye(3), (grid, 0, 0))
        voxels = np.random.default_rng([*name.encode()]).integers(0, 1000, (3, 3, 3), np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), root / name)
    try:
        _written(root, hr="**/*.nii")
    except ValueError as error:
        said = str(error)
    else:
        said = capsys.readouterr().out.partition("warning: ")[2]
    if "--subject '" not in said:
        return said, None
    options = {"hr": "**/*.nii", "subject": said.rpartition("--subject ")[2].strip().strip("'"), "split": (1, 1, 1, 0)}
    joined = _written(root, **options)[0]
    assert "warning" not in capsys.readouterr().out
    scans = {}
    for entry in (entry for group in GROUPS for entry in joined[group]):
        scans.setdefault(entry["subject"], set()).add(entry["hr"])
    return said, {frozenset(paths) for paths in scans.values()}


@pytest.mark.parametrize(
    "people",
    [
        [[f"OAS1_{i:04d}_MR{k}_mpr-1_anon.nii" for k in (1, 2)] for i in range(5)],
        [[f"OAS3{i:04d}_MR_d{day + 7 * i:04d}.nii" for day in (129, 3467)] for i in range(5)],
        [
            [
                f"ADNI_00{i}_S_029{i}_MR_x_{d}193713091_S{k}_I{3 * k}.nii"
                for d, k in ((20060418, 13408 + i), (20070319, 29612 + i))
            ]
            for i in range(5)
        ],
        [[f"file_brain_{c}_20{i}_600{i}47.nii" for c in ("AXT1", "AXT1POST", "AXFLAIR")] for i in range(5)],
        [[f"P0{i}/20{k}-04-18/T1.nii" for k in ("06", "07")] for i in range(5)],
        [[f"P0{i}_1{i}.0{k}.2019_T1.nii" for k in (3, 5)] for i in range(5)],
        [[f"P{i}/{c}.nii" for c in ("3_T1_MPRAGE", "5_T2", "9_FLAIR", "7_PD")] for i in range(5)],
        [[f"100{i}307_{c}.nii" for c in ("3T_T1w", "7T")] for i in range(5)],
        [[f"100{i}307_{c}.nii" for c in ("20252_2_0", "20253_2_0", "20252_3_0")] for i in range(5)],
        [[f"BraTS-GLI-0000{i}-00{k}-t1n.nii" for k in range(1 + i % 2)] for i in range(8)],
        [[f"s{i}{c}.nii" for c in ("_ses-01", "_Visit2", "-tp3", "_m06", "_followup")] for i in range(1, 6)],
        [[f"P{i:02d}_T1w.nii", f"p{i:02d}_ce.nii"] for i in range(5)],
        [[f"{name}_{year}.nii" for year in (2019, 2021)] for name in ("smith", "jones", "miller", "ann_brown")],
        [[f"{year}_P{i:02d}.nii" for year in (2019, 2021)] for i in range(5)],
        [[f"P{i:02d}_{year}0{i + 1}12.nii" for year in (19, 21)] for i in range(5)],
        [["p/a_1_t1.nii", "q/a_1_t2.nii"], ["a_2.nii"], ["sub-1_t1w.nii", "Sub-1_ses-2_t1w.nii"], ["sub-2_t1w.nii"]],
        [["k113_t1w.nii", "k113_t2w.nii", "k113_flair.nii"], ["ann.nii"], ["k11.nii"], ["k12.nii"]],
    ],
)
def test_scans_that_may_be_of_one_person_are_asked_about(tmp_path, capsys, people):
    """The --subject that the command gives joins those of one person, and no others."""
    names = [name for own in people for name in own]
    assert _asked(tmp_path, capsys, names, [0] * len(names))[1] == {frozenset(own) for own in people}


@pytest.mark.parametrize(
    "cohort",
    [
        [f"OAS1_{i:04d}_MR1_mpr-1_anon.nii" for i in range(1, 417)],
        [f"OAS{k}_{i:04d}_MR1.nii" for k in (1, 2) for i in range(3)],
        [f"IXI{i:03d}-Guys-{7 * i:04d}-T1.nii" for i in range(40)],
        [
            f"BraTS19_{name}_1_t1.nii"
            for name in ("2013_0", "2013_1", "CBICA_AAB", "CBICA_AAG", "TCIA01_147", "TCIA02_147")
        ],
        [f"{9 * i:07d}_20252_2_0.nii" for i in range(40)],
        [f"site{k:02d}_{i:02d}_T1.nii" for k in range(5) for i in range(4)],
        [f"HCP1200_T1_100{i}07.nii" for i in range(8)],
        [f"study2_PD{i:02d}.nii" for i in range(8)],
        [f"study2_m{i:02d}.nii" for i in range(8)],
        [f"T1{i:02d}.nii" for i in range(8)],
        [f"scan_{year}.nii" for year in range(2001, 2009)],
        [f"{number}_3T.nii" for number in (100307, 100408, 101107, 101309)],
    ],
)
def test_persons_of_a_cohort_stay_apart(cohort):
    assert len({*guess_persons(Path("nowhere"), cohort).values()}) == len(cohort)


def test_scans_with_a_grid_of_their_own(tmp_path, capsys):
    """Up to six on one grid may be of one person, if no number says otherwise; more are of a study."""
    for number, (own, joined) in enumerate(
        (
            (["ann_x", "ann_y"], True),
            ([f"ann_{i}" for i in range(6)], True),
            ([f"ann_{i}" for i in range(7)], False),
            ([f"ann_{i:02d}" for i in range(2)], True),
            ([f"ann_{i:03d}" for i in range(2)], False),
            ([f"ann{i:02d}" for i in range(6)], False),
        )
    ):
        names = [f"{name}.nii" for name in (*own, *"bcde")]
        grids = [0] * len(own) + [1, 2, 3, 4]
        said, found = _asked(tmp_path / str(number), capsys, names, grids)
        assert (frozenset(names[:-4]) in (found or ())) == joined, own
        assert joined or not said
    cohort = [f"study_{i}_t1.nii" for i in range(6)]
    assert not _asked(tmp_path / "template", capsys, cohort, [0] * 6)[0]  # the grid shows nothing
    assert not _asked(tmp_path / "native", capsys, cohort, range(6))[0]


def test_pairs_of_two_people_are_named(tmp_path, capsys):
    """By their voxels, where they lie; as most pairs correlate where all are alike, and when training loads them."""
    degradation = GaussianProfile((2, 2, 2))
    for person, other in enumerate([0, 1, 2, 4, 3]):
        hr = runs.phantom(person, (40, 44, 36))
        runs.save(tmp_path / f"sub-{person}_hr.nii.gz", hr, runs.OBLIQUE)
        lr = degradation(torch.from_numpy(hr[None]).float())[0].numpy()
        runs.save(tmp_path / f"sub-{other}_lr.nii.gz", lr, degradation.compute_lr_affine(runs.OBLIQUE))
    image, moved = nib.load(tmp_path / "sub-0_lr.nii.gz"), tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(np.roll(image.get_fdata(), 4, 2), image.affine), moved)
    _written(tmp_path, hr="*_hr.nii.gz", lr="*_lr.nii.gz", paired=True)
    said = capsys.readouterr().out
    assert "2 of 5 pairs" in said and [
        name in said.split("warning")[1] for name in "sub-0 sub-3_hr sub-4_hr".split()
    ] == [False, True, True]
    for person in (0, 3):
        scans = {k: str(tmp_path / f"sub-{person}_{k}.nii.gz") for k in ("hr", "lr")}
        scans["lr"] = scans["lr"] if person == 0 else str(moved)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            MakeLRd("hr", degradation)(LoadScand(["hr", "lr"], "SI")(scans))
        assert ["sub-3_hr" in str(each.message) for each in caught] == [True] * (person == 3)
