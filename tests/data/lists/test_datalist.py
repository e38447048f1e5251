import json

import pytest

from common.commands.datalist import write_datalist
from common.data.lists.datalist import SETTINGS, as_lr, cross_validation, load_datalist, only_case

GROUPS = SETTINGS["unpaired"]


def _touch(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def _bids(root, count, contrasts=("t1w",)):
    _touch(root, *[f"sub-{i:03d}/sub-{i:03d}_{c}.nii.gz" for i in range(1, count + 1) for c in contrasts])


def _groups(root):
    data = json.loads((root / "dataset.json").read_text())
    return data, {group: {entry["subject"] for entry in data[group]} for group in SETTINGS[data["setting"]]}


def test_load(tmp_path):
    _touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii", "d_lr.nii")
    data = {g: [{"hr": f"{n}.nii", "subject": n}] for g, n in zip(GROUPS, "abcd", strict=True)}
    data["test"][0]["lr"] = "d_lr.nii"
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    assert load_datalist(str(tmp_path), "source") == [{"hr": str(tmp_path / "a.nii"), "subject": "a"}]
    pair = {"hr": str(tmp_path / "d.nii"), "lr": str(tmp_path / "d_lr.nii"), "subject": "d"}
    assert load_datalist(str(tmp_path), "test") == [pair]
    assert load_datalist(str(tmp_path), "test", ("lr",)) == [{k: pair[k] for k in ("lr", "subject")}]


@pytest.mark.parametrize(
    ("change", "group", "error", "words"),
    [
        ("", "source", FileNotFoundError, ["dataset.json does not exist", "python -m common datalist --dataset_dir"]),
        ("{", "source", ValueError, ["dataset.json is not valid JSON"]),
        ("[]", "source", ValueError, ["group 'source' has no volumes", "none"]),
        ({}, "training", ValueError, ["'training'", "source, target, validation, test"]),
        (
            {},
            "train",
            ValueError,
            ["unpaired setting", "source, target", "python -m common datalist", "--setting guided"],
        ),
        ({"target": []}, "target", ValueError, ["group 'target' has no volumes", "source, validation, test"]),
        ({"target": [{"image": "b.nii"}]}, "source", ValueError, ["target[0]", "image", '"hr" or "lr"']),
        ({"target": ["b.nii"]}, "target", ValueError, ["target[0]"]),
        ({"setting": "paired"}, "source", ValueError, ["'paired'", "unpaired, misaligned"]),
        ({"test": [{"hr": "a.nii", "subject": "a"}]}, "source", ValueError, ["subjects a are in source and in test"]),
        ({"setting": "misaligned"}, "source", ValueError, ["only one of them holds a, b"]),
        (
            {"target": [{"hr": "x.nii", "subject": "x"}, {"lr": "y.nii", "subject": "y"}]},
            "target",
            FileNotFoundError,
            ["2 listed files", "x.nii", "y.nii"],
        ),
    ],
)
def test_bad_files(tmp_path, change, group, error, words):
    _touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii")
    data = {g: [{"hr": f"{n}.nii", "subject": n}] for g, n in zip(GROUPS, "abcd", strict=True)}
    if change != "":
        text = change if isinstance(change, str) else json.dumps({**data, **change})
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(error) as caught:
        load_datalist(str(tmp_path), group)
    assert all(word in str(caught.value) for word in words), caught.value


def test_bad_folders_and_kinds(tmp_path):
    for call in (load_datalist, write_datalist):
        with pytest.raises(ValueError, match="dataset_dir is empty"):
            call("", "source")
        with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
            call(str(tmp_path / "nowhere"), "source")
    _bids(tmp_path, 4)
    write_datalist(str(tmp_path), hr="*/*.nii.gz")
    for optional in (False, True):
        with pytest.raises(ValueError, match="no entry of group target holds lr"):
            load_datalist(str(tmp_path), "target", "lr", optional=optional)


def _guided(root, train, test):
    """A dataset.json with an HR file and a guide for each subject; 'b' has no guide, lower case no HR."""

    def entry(name):
        scan = {"hr" if name.isupper() else "lr": f"{name}.nii"}
        return {**scan, **({} if name in "bB" else {"guide": f"{name}_g.nii"}), "subject": name}

    _touch(root, *[f"{name}{end}.nii" for name in train + test for end in ("", "_g")])
    groups = {"train": [entry(name) for name in train], "test": [entry(name) for name in test], "validation": []}
    (root / "dataset.json").write_text(json.dumps({"setting": "guided", **groups}))


def test_load_guided(tmp_path):
    _guided(tmp_path, "ab", "C")
    paths = {name: str(tmp_path / f"{name}.nii") for name in ("a", "a_g", "b", "C")}
    entries = [{"lr": paths["a"], "guide": paths["a_g"], "subject": "a"}, {"lr": paths["b"], "subject": "b"}]
    assert load_datalist(str(tmp_path), "train") == entries
    assert load_datalist(str(tmp_path), "test", ("hr", "lr")) == [{"hr": paths["C"], "subject": "C"}]
    with pytest.raises(ValueError, match=r"no guide for b in group train; add it, or .* --guided false"):
        load_datalist(str(tmp_path), "train", needs="guide")
    with pytest.raises(ValueError, match="no entry of group test holds lr; "):  # its guide is no scan
        load_datalist(str(tmp_path), "test", ("lr", "guide"))
    with pytest.raises(
        ValueError, match=r"guided setting, whose groups are train, validation, test.*--setting unpaired"
    ):
        load_datalist(str(tmp_path), "source")


def test_cross_validation(tmp_path):
    """Every subject is held out once, with all its entries, and never trained on in that fold."""
    _guided(tmp_path, "AACDEF", "GGH")
    times = []
    for fold in range(3):
        held = cross_validation(str(tmp_path), 3, fold, True)
        rest = cross_validation(str(tmp_path), 3, fold, False, needs="guide")
        assert not {e["subject"] for e in held} & {e["subject"] for e in rest} and len(held) + len(rest) == 9
        times += [entry["subject"] for entry in held]
        assert len({entry["subject"] for entry in held}) in (2, 3)
    assert sorted(times) == list("AACDEFGGH")

    with pytest.raises(ValueError, match=r"found 7 subjects in train and test .* for 8 folds"):
        cross_validation(str(tmp_path), 8, 0, True)
    for folds, fold in ((3, 3), (3, -1), (1, 0)):
        with pytest.raises(ValueError, match=f"fold {fold} of {folds}; expected 2 folds or more, counted from 0"):
            cross_validation(str(tmp_path), folds, fold, True)
    _guided(tmp_path, "ABc", "")
    for needs, held_out in ((None, True), ("guide", False)):
        with pytest.raises(ValueError, match=r"no (hr for [ac]|guide for B) in the (held-out|training) part of fold"):
            for fold in range(3):
                cross_validation(str(tmp_path), 3, fold, held_out, needs=needs)


@pytest.mark.parametrize("setting", ["unpaired", "misaligned"])
def test_cross_validation_pools_source_target_and_test(tmp_path, setting):
    """Two scans of each of 12 subjects, listed twice where source and target share them; validation stays out."""
    _bids(tmp_path, 12, ("t1w", "run2_t1w"))
    write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", setting=setting)
    data, groups = _groups(tmp_path)
    pooled = {entry["hr"] for group in GROUPS if group != "validation" for entry in data[group]}
    times = []
    for fold in range(5):
        held, rest = (cross_validation(str(tmp_path), 5, fold, held_out) for held_out in (True, False))
        scans = [[entry["hr"].removeprefix(f"{tmp_path}/") for entry in part] for part in (held, rest)]
        assert not {entry["subject"] for entry in held} & {entry["subject"] for entry in rest}
        assert sorted(scans[0] + scans[1]) == sorted(pooled), "each scan once, in one part"
        times += [entry["subject"] for entry in held]
    assert sorted(times) == sorted(2 * list(set().union(*groups.values()) - groups["validation"]))
    assert not set(times) & groups["validation"]


def test_cross_validation_with_authentic_lr_holds_out_pairs(tmp_path):
    """As the paper does it: misaligned HR scans in source and LR scans in target, which are each other's test."""
    _bids(tmp_path, 12, ("hr", "lr"))
    write_datalist(str(tmp_path), hr="*/*_hr.nii.gz", lr="*/*_lr.nii.gz", setting="misaligned")
    _, groups = _groups(tmp_path)
    times = []
    for fold in range(5):
        held = cross_validation(str(tmp_path), 5, fold, True, ("hr", "lr"), "hr")
        rest = cross_validation(str(tmp_path), 5, fold, False, ("hr", "lr"))
        for entry in held + rest:
            assert {key: entry[key].rsplit("/")[-1] for key in ("hr", "lr")} == {
                key: f"{entry['subject']}_{key}.nii.gz" for key in ("hr", "lr")
            }
        source = cross_validation(str(tmp_path), 5, fold, False, "hr")
        assert [entry["subject"] for entry in source] == [entry["subject"] for entry in rest]
        times += [entry["subject"] for entry in held]
    assert sorted(times) == sorted(groups["source"] | groups["test"])
    # Of several scans nobody knows which belong together.
    _touch(tmp_path, *[f"sub-{i:03d}/sub-{i:03d}_run2_hr.nii.gz" for i in range(1, 13)])
    write_datalist(str(tmp_path), hr="*/*_hr.nii.gz", lr="*/*_lr.nii.gz", setting="misaligned")
    with pytest.raises(ValueError, match=r"no hr for sub-.* in the held-out part of fold 0"):
        cross_validation(str(tmp_path), 5, 0, True, ("hr", "lr"), "hr")


def test_cross_validation_trains_always_with_lr_scans_of_others(tmp_path):
    """Unpaired, LR scans of other people: they are the target in each fold, and nothing is evaluated on them."""
    _bids(tmp_path, 6, ("hr",))
    _touch(tmp_path, *[f"sub-9{i}/sub-9{i}_lr.nii.gz" for i in range(3)])
    write_datalist(str(tmp_path), hr="*/*_hr.nii.gz", lr="*/*_lr.nii.gz")
    for fold in range(3):
        held = cross_validation(str(tmp_path), 3, fold, True, ("hr", "lr"), "hr")
        target = cross_validation(str(tmp_path), 3, fold, False, "lr")
        assert held and all("hr" in entry for entry in held)
        assert [entry["subject"] for entry in target] == ["sub-90", "sub-91", "sub-92"]


def test_an_optional_group_may_be_empty(tmp_path):
    _touch(tmp_path, "ct/a.nii", "lr/a.nii")
    write_datalist(str(tmp_path), ct="ct/*", lr="lr/*", setting="cross_modality")
    assert load_datalist(str(tmp_path), "validation", needs="hr", optional=True) == []
    with pytest.raises(ValueError, match=r"group 'validation' has no volumes; .*: source, target"):
        load_datalist(str(tmp_path), "validation")
    ct = [{"hr": str(tmp_path / "ct/a.nii"), "subject": "a"}]
    assert load_datalist(str(tmp_path), "source", ct=True, optional=True) == ct
    with pytest.raises(ValueError, match="there is no group 'train'"):
        load_datalist(str(tmp_path), "train", optional=True)


def test_ct_is_not_taken_for_mr(tmp_path):
    """A config that learns from HR MR refuses a datalist whose source is CT, and the other way round."""
    _touch(tmp_path, *[f"{kind}/{subject}.nii" for kind in ("ct", "hr") for subject in "abcd"])
    write_datalist(str(tmp_path), ct="ct/*", hr="hr/*", setting="cross_modality")
    with pytest.raises(ValueError, match=r"cross_modality setting, whose source group holds CT.*--hr PATTERN"):
        load_datalist(str(tmp_path), "source", "hr")
    write_datalist(str(tmp_path), hr="hr/*")
    with pytest.raises(ValueError, match=r"unpaired setting, whose source group holds MR.*--setting cross_modality"):
        load_datalist(str(tmp_path), "source", "hr", ct=True)


def test_cross_validation_of_two_modalities_pools_mr_alone(tmp_path):
    """Folds over the MR subjects with known HR; no CT among the entries, and none of a subject that is held out."""
    _touch(tmp_path, *[f"hr/m{i}.nii" for i in range(8)], *[f"ct/c{i}.nii" for i in range(3)], "lr/l.nii", "ct/l.nii")
    arguments = {"hr": "hr/*", "lr": "lr/*", "setting": "cross_modality"}
    write_datalist(str(tmp_path), ct="ct/*", **arguments)
    _, groups = _groups(tmp_path)
    assert "l" in groups["source"] & groups["target"]
    times = []
    for fold in range(3):
        held = cross_validation(str(tmp_path), 3, fold, True, needs="hr")
        rest = cross_validation(str(tmp_path), 3, fold, False)
        assert not {entry["subject"] for entry in held} & {entry["subject"] for entry in rest}
        assert not any("/ct/" in entry.get("hr", "") for entry in held + rest)
        assert {"lr": str(tmp_path / "lr/l.nii"), "subject": "l"} in rest  # it has CT, and is never held out
        times += [entry["subject"] for entry in held]
    assert sorted(times) == sorted((groups["target"] | groups["test"]) - {"l"})
    with pytest.raises(ValueError, match=r"found 7 subjects in target and test .* for 9 folds"):
        cross_validation(str(tmp_path), 9, 0, True)

    _touch(tmp_path, *[f"ct/m{i}.nii" for i in range(8)])
    write_datalist(str(tmp_path), ct="ct/*", **arguments)
    with pytest.raises(ValueError, match=r"source, .* has CT of m\d, .*Leave this CT out of source"):
        cross_validation(str(tmp_path), 3, 0, True)


def test_only_case():
    """One entry by its number, and an error that says how many there are."""
    assert only_case([{"hr": "a"}, {"hr": "b"}], 1) == [{"hr": "b"}]
    for wrong in (2, -1, True, "0"):
        with pytest.raises(ValueError, match="expected one of the 2: 0 to 1"):
            only_case([{"hr": "a"}, {"hr": "b"}], wrong)


def test_entries_as_lr_scans_keep_hr_only_where_there_is_no_lr_at_all():
    entries = [{"hr": "a", "subject": "1"}, {"hr": "b", "lr": "c", "subject": "2"}, {"lr": "d"}]
    assert as_lr(entries) == [{"lr": "c", "subject": "2"}, {"lr": "d"}]
    assert as_lr(entries[:1]) == entries[:1]
    assert entries[1]["hr"] == "b"
