import json

import pytest

from common.data.datalist import SETTINGS, cross_validation, load_datalist, write_datalist

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


@pytest.mark.parametrize("count", [4, 7, 40])
def test_unpaired_subjects_never_cross(tmp_path, count):
    """Two scans per subject, ten seeds: every subject is in one group, with both scans, and every group has one."""
    _bids(tmp_path, count, ("t1w", "run2_t1w"))
    splits = set()
    for seed in range(10):
        write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", split=(0.4, 0.4, 0.1, 0.1), seed=seed)
        text = (tmp_path / "dataset.json").read_text()
        data, groups = _groups(tmp_path)
        assert all(groups.values()) and sum(map(len, groups.values())) == len(set().union(*groups.values())) == count
        assert sum(len(data[group]) for group in GROUPS) == 2 * count
        assert all(set(entry) == {"hr", "subject"} for group in GROUPS for entry in data[group])
        splits.add(text)
        write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", split="0.4,0.4,0.1,0.1", seed=seed)
        assert (tmp_path / "dataset.json").read_text() == text
    assert len(splits) > 5
    if count == 40:
        assert [len(groups[group]) for group in GROUPS] == [16, 16, 4, 4]


def test_misaligned_subjects_coincide(tmp_path):
    _bids(tmp_path, 9)
    for seed in range(10):
        write_datalist(str(tmp_path), hr="*/*.nii.gz", setting="misaligned", seed=seed)
        data, groups = _groups(tmp_path)
        assert groups["source"] == groups["target"] and data["source"] == data["target"]
        assert not groups["source"] & (groups["validation"] | groups["test"])
        assert not groups["validation"] & groups["test"] and groups["validation"] and groups["test"]
        assert sum(len(groups[group]) for group in GROUPS if group != "target") == 9


def test_authentic_lr(tmp_path):
    """LR scans of other people, of some of the HR people, of all of them: each volume where it can serve."""
    _touch(tmp_path, *[f"hr/h{i}.nii.gz" for i in range(6)], *[f"lr/l{i}.nii.gz" for i in range(4)])
    for seed in range(5):
        write_datalist(str(tmp_path), hr="hr/*.nii.gz", lr="lr/*.nii.gz", seed=seed)
        data, groups = _groups(tmp_path)
        assert groups["target"] == {"l0", "l1", "l2", "l3"} and all("lr" in entry for entry in data["target"])
        assert groups["source"] | groups["validation"] | groups["test"] == {f"h{i}" for i in range(6)}

    _touch(tmp_path, "lr/h2.nii.gz", "lr/h5.nii.gz")
    write_datalist(str(tmp_path), hr="hr/*.nii.gz", lr="lr/*.nii.gz")
    data, groups = _groups(tmp_path)
    assert groups["validation"] | groups["test"] == {"h2", "h5"}
    assert {"hr", "lr"} <= set(data["validation"][0]) and {"hr", "lr"} <= set(data["test"][0])

    write_datalist(str(tmp_path), hr="hr/h*.nii.gz", lr="lr/h*.nii.gz,lr/l0.nii.gz")
    assert _groups(tmp_path)[1]["target"] == {"l0"}

    _touch(tmp_path, *[f"lr/h{i}.nii.gz" for i in range(6)])
    for setting in ("unpaired", "misaligned"):
        write_datalist(str(tmp_path), hr="hr/h*.nii.gz", lr="lr/h*.nii.gz", setting=setting)
        data, groups = _groups(tmp_path)
        assert all("lr" not in entry for entry in data["source"]) and all("hr" not in entry for entry in data["target"])
        assert (groups["source"] == groups["target"]) == (setting == "misaligned")
        assert all({"hr", "lr"} <= set(entry) for entry in data["validation"] + data["test"])


def test_groups_by_hand_and_subject_expression(tmp_path):
    _touch(tmp_path, *[f"{name}_{run}.nii.gz" for name in "abcd" for run in (1, 2)])
    arguments = {"source": "a_*", "target": "b_*", "validation": "c_1.nii.gz", "test": "d_*"}
    write_datalist(str(tmp_path), hr="*.nii.gz", subject=r"^(\w)_", **arguments)
    data, groups = _groups(tmp_path)
    assert groups == {"source": {"a"}, "target": {"b"}, "validation": {"c"}, "test": {"d"}}
    assert [entry["hr"] for entry in data["validation"]] == ["c_1.nii.gz"]
    with pytest.raises(ValueError, match="subjects a are in source and in target"):
        write_datalist(str(tmp_path), hr="*.nii.gz", subject=r"^(\w)_", **{**arguments, "target": "a_2*"})
    with pytest.raises(ValueError, match="only one of them holds a, b"):
        write_datalist(str(tmp_path), hr="*.nii.gz", subject=r"^(\w)_", setting="misaligned", **arguments)
    with pytest.raises(ValueError, match="missing: --target, --validation, --test"):
        write_datalist(str(tmp_path), hr="*.nii.gz", source="a_*")
    with pytest.raises(ValueError, match="group source has no volumes"):
        write_datalist(str(tmp_path), hr="[b-d]*.nii.gz", lr="a*.nii.gz", subject=r"^(\w)_", **arguments)
    # A failed command leaves the file of the last good one.
    assert _groups(tmp_path)[0] == data


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, ["no --hr pattern"]),
        ({"hr": "*/*_t2w.nii.gz"}, FileNotFoundError, ["no files match --hr", "_t2w"]),
        ({"hr": "*/*.nii.gz", "lr": "*/*-001*"}, ValueError, ["sub-001_t1w.nii.gz", "--hr and --lr"]),
        ({"hr": "*/*.nii.gz", "setting": "paired"}, ValueError, ["--setting paired", "unpaired, misaligned"]),
        ({"hr": "*/*.nii.gz", "split": (0.5, 0.5, 0)}, ValueError, ["--split", "4 positive numbers"]),
        ({"hr": "*/*.nii.gz", "split": "a,b,c,d"}, ValueError, ["--split a,b,c,d"]),
        ({"hr": "*/*.nii.gz", "split": (0.5, 0.5, 0, 0)}, ValueError, ["--split"]),
        ({"hr": "*/*.nii.gz", "subject": "case-(.*)"}, ValueError, ["--subject", "sub-001_t1w"]),
        ({"hr": "*/*.nii.gz"}, ValueError, ["found 3 subjects", "at least 4", "sub-001, sub-002, sub-003"]),
        ({"hr": "/data/*.nii.gz"}, ValueError, ["/data/*.nii.gz", "relative"]),
        ({"hr": "*/*.nii.gz", "guide": "*/*"}, ValueError, ["--guide in the unpaired setting", "--setting guided"]),
        ({"hr": "*/*.nii.gz", "train": "*/*"}, ValueError, ["--train: no group of the unpaired", "source, target"]),
        ({"setting": "guided", "source": "*/*"}, ValueError, ["--source: no group of the guided", "train, validation"]),
        ({"setting": "guided"}, ValueError, ["no --hr and no --lr pattern"]),
        ({"setting": "guided", "lr": "*/*", "guide": "*/*"}, ValueError, ["--lr and --guide", "exclusive"]),
        ({"setting": "guided", "lr": "*/*", "split": (1, 1, 1, 1)}, ValueError, ["2 positive numbers, for train, val"]),
        ({"setting": "guided", "lr": "*/*", "test": "*/*"}, ValueError, ["--test without --hr"]),
        (
            {"setting": "guided", "hr": "*/*", "subject": "s"},
            ValueError,
            ["--hr matches several volumes of s (sub-001"],
        ),
        ({"setting": "guided", "hr": "sub-00[12]/*"}, ValueError, ["found 2 subjects", "at least 3", "(guided)"]),
    ],
)
def test_bad_commands(tmp_path, arguments, error, words):
    _bids(tmp_path, 3)
    with pytest.raises(error) as caught:
        write_datalist(str(tmp_path), **arguments)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "dataset.json").exists() and not list(tmp_path.glob(".*"))


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
    with pytest.raises(ValueError, match="no entry of group target holds lr"):
        load_datalist(str(tmp_path), "target", "lr")


def test_guided_groups(tmp_path, capsys):
    """Two subjects of ten have known HR: test gets them only, and each guide goes with its subject."""
    _bids(tmp_path, 10, ("t1w", "t2w"))
    _touch(tmp_path, "hr/sub-003.nii.gz", "hr/sub-007.nii.gz")
    arguments = {"lr": "sub-*/*_t2w.nii.gz", "guide": "sub-*/*_t1w.nii.gz", "setting": "guided"}
    tested = set()
    for seed in range(10):
        write_datalist(str(tmp_path), hr="hr/*", split=(5, 2, 3), seed=seed, **arguments)
        data, groups = _groups(tmp_path)
        assert len(set().union(*groups.values())) == sum(map(len, groups.values())) == 10
        # Test's third subject is not there to be had.
        assert [len(groups[group]) for group in SETTINGS["guided"]] == [6, 2, 2]
        assert groups["test"] == {"sub-003", "sub-007"}
        write_datalist(str(tmp_path), hr="hr/*", seed=seed, **arguments)
        data, groups = _groups(tmp_path)
        assert [len(groups[group]) for group in SETTINGS["guided"]] == [8, 1, 1]
        tested |= groups["test"]
        for entry in (entry for group in groups for entry in data[group]):
            name = entry["subject"]
            hr = {"hr": f"hr/{name}.nii.gz"} if name in ("sub-003", "sub-007") else {}
            scans = {"lr": f"{name}/{name}_t2w.nii.gz", "guide": f"{name}/{name}_t1w.nii.gz"}
            assert entry == {**hr, **scans, "subject": name}
    assert tested == {"sub-003", "sub-007"}

    capsys.readouterr()
    write_datalist(str(tmp_path), **arguments)
    data, groups = _groups(tmp_path)
    assert [len(groups[group]) for group in SETTINGS["guided"]] == [9, 1, 0]
    assert "test: none, as no HR volume is known" in capsys.readouterr().out
    for split in ((4, 6), "4,6,9"):
        write_datalist(str(tmp_path), split=split, **arguments)
        assert [len(members) for members in _groups(tmp_path)[1].values()] == [4, 6, 0]


def test_guided_partners(tmp_path):
    """A scan without guide, a guide without scan, and two scans of one subject are listed by subject."""
    _bids(tmp_path, 4, ("t2w",))
    _touch(tmp_path, *[f"g/sub-00{i}.nii.gz" for i in (1, 2, 4)])
    arguments = {"lr": "sub-*/*_t2w.nii.gz", "guide": "g/*", "setting": "guided"}
    with pytest.raises(ValueError, match=r"4 scans but 3 guides; without a guide: sub-003\. .*--subject"):
        write_datalist(str(tmp_path), **arguments)
    _touch(tmp_path, "g/sub-009.nii.gz")
    with pytest.raises(ValueError, match=r"4 scans and 4 guides; without a guide: sub-003; without a scan: sub-009\. "):
        write_datalist(str(tmp_path), **arguments)
    _touch(tmp_path, "g/sub-001_again.nii.gz")
    with pytest.raises(
        ValueError, match=r"--guide matches several volumes of sub-001 \(g/sub-001.nii.gz, g/sub-001_aga"
    ):
        write_datalist(str(tmp_path), **arguments)


def test_guided_by_hand(tmp_path):
    _touch(tmp_path, *[f"{kind}/{name}.nii" for kind in ("hr", "lr", "g") for name in "abc"])
    arguments = {"hr": "hr/*", "lr": "lr/*", "guide": "g/*", "setting": "guided", "train": "*/a.nii"}
    write_datalist(str(tmp_path), validation="lr/b*", test="hr/c*", **arguments)
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "setting": "guided",
        "train": [{"hr": "hr/a.nii", "lr": "lr/a.nii", "guide": "g/a.nii", "subject": "a"}],
        "validation": [{"lr": "lr/b.nii", "guide": "g/b.nii", "subject": "b"}],
        "test": [{"hr": "hr/c.nii", "guide": "g/c.nii", "subject": "c"}],
    }
    with pytest.raises(ValueError, match="--test picks no --hr file of c"):
        write_datalist(str(tmp_path), validation="lr/b*", test="lr/c*", **arguments)
    with pytest.raises(ValueError, match="subjects b are in validation and in test"):
        write_datalist(str(tmp_path), validation="lr/b*", test="hr/[bc]*", **arguments)
    with pytest.raises(ValueError, match="missing: --test"):
        write_datalist(str(tmp_path), validation="lr/b*", **arguments)


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
