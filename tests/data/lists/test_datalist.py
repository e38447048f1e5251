"""Which volumes a group and a fold have, by ``dataset.json``, and what is said where one is missing."""

import json

import pytest

from common.data.lists.datalist import (
    GROUPS,
    KINDS,
    load_datalist,
    load_fold,
    select_case,
    select_hr,
    select_lr,
    use_ct_as_hr,
)
from common.program.datalist.assignment import write_datalist
from tests.program.exams.test_scans import touch
from tests.refused import refused

COMMAND = "python -m common datalist --dataset_dir"


def _bids(root, count, contrasts=("t1w",)):
    touch(root, *[f"sub-{i:03d}/sub-{i:03d}_{c}.nii.gz" for i in range(1, count + 1) for c in contrasts])


def _listed(root, **data):
    """A dataset.json with these contents, and its files, empty; the folder's name."""
    entries = [entry for group in data.values() if isinstance(group, list) for entry in group]
    touch(root, *[path for entry in entries for kind, path in entry.items() if kind != "subject"])
    (root / "dataset.json").write_text(json.dumps(data))
    return str(root)


def _scan(name, kind="hr"):
    return {kind: f"{kind}/{name}.nii", "subject": name}


def _subjects(entries):
    return [entry["subject"] for entry in entries]


def _groups(root):
    data = json.loads((root / "dataset.json").read_text())
    return data, {group: set(_subjects(data[group])) for group in GROUPS}


def _folds(root, count, *options):
    """What each fold holds out, and the rest; no subject is in both."""
    folds = [[load_fold(str(root), count, n, held, *options) for held in (True, False)] for n in range(count)]
    assert all(not set(_subjects(held)) & set(_subjects(rest)) for held, rest in folds)
    return folds


def test_load(tmp_path):
    everything = {kind: f"{kind}/a.nii" for kind in ("hr", "lr", "guide", "ct")}
    data = _listed(tmp_path, source=[{**everything, "subject": "a"}, _scan("b", "ct"), _scan("c")])
    paths = {kind: str(tmp_path / path) for kind, path in everything.items()}
    for kinds, subjects in (("hr", "ac"), ("ct", "ab"), (("lr", "guide"), "a"), (("guide", "ct", "hr"), "abc")):
        entries = load_datalist(data, "source", kinds)
        assert _subjects(entries) == list(subjects)
        assert entries[0] == {**{kind: paths[kind] for kind in paths if kind in kinds}, "subject": "a"}
    # Guides and CT come only to who asks for them.
    assert load_datalist(data, "source")[0] == {"hr": paths["hr"], "lr": paths["lr"], "subject": "a"}


def test_bad_folders_and_files(tmp_path):
    for call in (load_datalist, write_datalist):
        refused(lambda call=call: call("", "source"), ValueError, "dataset_dir", "empty")
        refused(lambda call=call: call("nowhere", "source"), FileNotFoundError, "dataset_dir", "nowhere")
    for change, group, kind, words in (
        ("", "source", FileNotFoundError, ["dataset.json", COMMAND]),
        ("{}", "source", ValueError, ["'source'", "hr or lr"]),
        ("[]", "source", ValueError, ["dataset.json", COMMAND]),
        ({"target": {"hr": "b.nii"}}, "source", ValueError, ["dataset.json", "target is {'hr'"]),
        ({"target": [{"hr": ["b.nii"]}]}, "source", ValueError, ["dataset.json", "target[0], hr is ['b.nii']", "path"]),
        ({}, "train", ValueError, ["'train'", "source, target, validation, test"]),
        ({"target": [{"image": "b.nii"}]}, "source", ValueError, ["target[0]", "image", '"hr", "lr" or "ct"']),
        ({"target": ["b.nii"]}, "target", ValueError, ["target[0]", "b.nii"]),
        ({"setting": "paired"}, "source", ValueError, ["'paired'", COMMAND]),
        ({"setting": "unpaired", "target": [_scan("a", "lr")]}, "source", ValueError, ["subjects a", "target"]),
        ({"test": [_scan("a")], "misaligned": True}, "source", ValueError, ["subjects a", "in source and in test"]),
        ({"target": [_scan("a", "lr")]}, "source", ValueError, ["in source and in target", "--misaligned True"]),
        ({"source": [_scan("c", "ct")]}, "source", ValueError, ["in source and in validation"]),
        ({"target": [_scan("x"), _scan("y", "lr")]}, "target", FileNotFoundError, ["2 listed", "hr/x.nii", "lr/y.nii"]),
    ):
        data = _listed(tmp_path, **{g: [_scan(name)] for g, name in zip(GROUPS, "abcd", strict=True)})
        file = tmp_path / "dataset.json"
        text = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
        file.write_text(text) if text else file.unlink()
        refused(lambda data=data, group=group: load_datalist(data, group), kind, *words)
    # A subject's CT may train beside its MR, if not where its MR is evaluated.
    data = _listed(tmp_path, source=[_scan("b", "ct")], target=[_scan("b")])
    assert load_datalist(data, "source", "ct") == [{"ct": str(tmp_path / "ct/b.nii"), "subject": "b"}]


def test_what_is_missing_and_the_command_that_adds_it(tmp_path):
    guided = {**_scan("g", "lr"), "guide": "guide/g.nii"}
    target, validation = [guided, _scan("t", "lr")], [_scan("v", "lr")]
    no_hr = _listed(tmp_path / "no_hr", source=[_scan("c", "ct")], target=target, validation=validation)
    hr = _listed(tmp_path / "hr", target=[_scan("a"), _scan("b")])
    for data, group, kinds, needs, patterns, words in (
        (no_hr, "source", "hr", None, KINDS, ["'source'", "kind hr,", "source 1 ct; target 2 lr, 1 guide;"]),
        (no_hr, "target", "hr", None, KINDS, ["'target'", "kind hr,"]),
        (no_hr, "target", ("hr", "lr"), "hr", KINDS, ["no hr for g, t", "'target'"]),
        (no_hr, "test", ("hr", "lr"), "hr", KINDS, ["'test'", "kind hr or lr"]),
        (hr, "target", ("hr", "lr", "guide"), "guide", ["hr", "guide"], ["no guide for a, b", "--guided False"]),
        (hr, "source", "ct", None, ["hr", "ct"], ["'source'", "kind ct,"]),
        (hr, "target", ("lr", "guide"), None, ["hr", "lr"], ["'target'", "kind lr,"]),  # its guide is no scan
    ):
        call, options = (data, group, kinds, needs), " ".join(f"--{kind} PATTERN" for kind in patterns)
        refused(lambda call=call: load_datalist(*call), ValueError, f"{COMMAND} {data} {options} (", *words)
    assert load_datalist(no_hr, "validation", ("hr", "lr"), "hr", optional=True) == []
    assert load_datalist(no_hr, "test", optional=True) == []
    some = _listed(tmp_path / "some", validation=[_scan("a"), _scan("b", "lr")])
    assert _subjects(load_datalist(some, "validation", needs="hr", optional=True)) == ["a"]


def test_files_with_each_earlier_setting(tmp_path):
    pair = {"hr": "hr/t.nii", "lr": "lr/t.nii", "guide": "guide/t.nii", "subject": "t"}
    data = _listed(tmp_path / "guided", setting="guided", train=[pair], validation=[_scan("v", "lr")], test=[])
    (entry,) = load_datalist(data, "target", ("hr", "lr", "guide"), "guide")
    assert entry == {**{kind: str(tmp_path / "guided" / pair[kind]) for kind in ("hr", "lr", "guide")}, "subject": "t"}
    assert load_datalist(data, "source", optional=True) == []
    shared = {"source": [_scan("a")], "target": [_scan("a", "lr")]}
    data = _listed(tmp_path / "ct", setting="cross_modality", **shared)
    assert load_datalist(data, "source", "ct") == [{"ct": str(tmp_path / "ct/hr/a.nii"), "subject": "a"}]
    refused(lambda: load_datalist(data, "source", "hr"), ValueError, "'source'", "kind hr,")  # CT is not taken for MR
    assert load_datalist(_listed(tmp_path / "misaligned", setting="misaligned", **shared), "target")


def test_cross_validation_holds_out_every_subject_with_known_hr_once(tmp_path):
    target = [{**_scan(name), "hr": f"hr/{name}{run}.nii"} for run, name in enumerate("AACDEF")]
    target[0]["guide"] = "guide/A.nii"
    data = _listed(tmp_path, target=target, test=[_scan("G"), _scan("H")])
    folds = _folds(data, 3)
    assert all(len(held) + len(rest) == 8 and len(set(_subjects(held))) in (2, 3) for held, rest in folds)
    assert sorted(subject for held, _ in folds for subject in _subjects(held)) == list("AACDEFGH")
    for call, words in (
        ((8, 0, True), ["7 subjects", "source, target and test", "8 folds"]),
        ((3, 3, True), ["fold 3 of 3", "0 to 2"]),
        ((3, -1, True), ["fold -1 of 3"]),
        ((1, 0, True), ["1 folds", "2 or more"]),
        ((7, 0, False, ("hr", "guide"), "guide"), ["no guide for", "C", "training part of fold 0"]),
    ):
        refused(lambda call=call: load_fold(data, *call), ValueError, *words)
    # A group that the command is told to leave empty takes no subjects from the folds.
    _bids(tmp_path / "all", 20)
    write_datalist(str(tmp_path / "all"), hr="*/*", split=(0, 4, 0, 1))
    held = [subject for held, _ in _folds(tmp_path / "all", 4) for subject in _subjects(held)]
    assert sorted(held) == [f"sub-{i:03d}" for i in range(1, 21)]


@pytest.mark.parametrize("misaligned", [False, True])
def test_cross_validation_pools_source_target_and_test(tmp_path, misaligned):
    """Two scans of each of 12 subjects, listed twice where source and target share them; validation stays out."""
    _bids(tmp_path, 12, ("t1w", "run2_t1w", "ct"))
    write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", ct="*/*_ct.nii.gz", misaligned=misaligned)
    data, groups = _groups(tmp_path)
    pooled = {entry["hr"] for group in GROUPS if group != "validation" for entry in data[group] if "hr" in entry}
    times = []
    for held, rest in _folds(tmp_path, 5):
        scans = [entry["hr"].removeprefix(f"{tmp_path}/") for entry in held + rest]
        assert sorted(scans) == sorted(pooled), "each scan once, in one part"
        times += _subjects(held)
    assert sorted(times) == sorted(2 * list(set().union(*groups.values()) - groups["validation"]))


def test_cross_validation_with_authentic_lr_holds_out_pairs(tmp_path):
    """As the paper does it: misaligned HR scans in source and LR scans in target, which are each other's test."""
    _bids(tmp_path, 12, ("hr", "lr"))
    write_datalist(str(tmp_path), hr="*/*_hr.nii.gz", lr="*/*_lr.nii.gz", misaligned=True)
    data, groups = _groups(tmp_path)
    times = []
    for fold, (held, rest) in enumerate(_folds(tmp_path, 5, ("hr", "lr"))):
        assert held == load_fold(str(tmp_path), 5, fold, True, ("hr", "lr"), "hr")
        for entry in held + rest:
            assert all(entry[key].endswith(f"/{entry['subject']}_{key}.nii.gz") for key in ("hr", "lr"))
        assert _subjects(load_fold(str(tmp_path), 5, fold, False, "hr")) == _subjects(rest)
        times += _subjects(held)
    assert sorted(times) == sorted(groups["source"] | groups["test"])
    # Of several scans nobody knows which belong together.
    data["source"] += [{**entry, "hr": f"again/{i}.nii"} for i, entry in enumerate(data["source"])]
    call = _listed(tmp_path, **data), 5, 0, True, ("hr", "lr"), "hr"
    refused(lambda: load_fold(*call), ValueError, "no hr for sub-", "held-out part of fold 0")


def test_cross_validation_trains_always_with_unpaired_lr_and_ct_of_who_is_not_held_out(tmp_path):
    touch(tmp_path, *[f"{kind}/m{i}.nii" for i in range(9) for kind in ("hr", "ct")])
    touch(tmp_path, "ct/c.nii", *[f"{kind}/l{i}.nii" for i in range(3) for kind in ("lr", "ct")])
    write_datalist(str(tmp_path), hr="hr/*", lr="lr/*", ct="ct/*")
    _, groups = _groups(tmp_path)
    assert groups["validation"] and {"c", "l0", "l1", "l2"} <= groups["source"]
    for fold, (held, rest) in enumerate(_folds(tmp_path, 3)):
        ct, lr = (load_fold(str(tmp_path), 3, fold, False, kind) for kind in ("ct", "lr"))
        assert lr == [{"lr": str(tmp_path / f"lr/l{i}.nii"), "subject": f"l{i}"} for i in range(3)]
        assert all(entry in rest for entry in lr) and not any("ct" in entry for entry in rest)
        assert all(entry["ct"] == str(tmp_path / f"ct/{entry['subject']}.nii") and len(entry) == 2 for entry in ct)
        assert set(_subjects(ct)) == groups["source"] - set(_subjects(held))
        assert set(_subjects(held)) & groups["source"] and all("hr" in entry for entry in held)


def test_what_is_taken_of_entries():
    entries = [{"hr": "a", "subject": "1"}, {"hr": "b", "lr": "c", "subject": "2"}, {"lr": "d", "subject": "3"}]
    assert select_hr(entries) == [{"hr": "a", "subject": "1"}, {"hr": "b", "subject": "2"}]
    refused(lambda: select_hr(entries[2:]), ValueError, "found 1 scans")
    # HR scans stand in for LR scans only where there are none of these.
    assert select_lr(entries) == [{"lr": "c", "subject": "2"}, {"lr": "d", "subject": "3"}] and entries[1]["hr"] == "b"
    assert select_lr(entries, keep_hr=True) == entries[1:]
    assert select_lr(entries[:1]) == entries[:1]
    assert use_ct_as_hr([{"hr": "a", "ct": "c", "guide": "g", "subject": "1"}]) == [{"hr": "c", "subject": "1"}]
    assert select_case(entries, 2) == entries[2:]
    for wrong in (3, -1, True, "0"):
        refused(lambda wrong=wrong: select_case(entries, wrong), ValueError, f"{wrong!r}", "0 to 2")
