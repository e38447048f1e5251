import json

import pytest

from common.data.datalist import GROUPS, load_datalist, write_datalist


def _touch(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def _bids(root, count, contrasts=("t1w",)):
    _touch(root, *[f"sub-{i:03d}/sub-{i:03d}_{c}.nii.gz" for i in range(1, count + 1) for c in contrasts])


def _groups(root):
    data = json.loads((root / "dataset.json").read_text())
    return data, {group: {entry["subject"] for entry in data[group]} for group in GROUPS}


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
        ({"hr": "*/*.nii.gz", "split": (0.5, 0.5, 0)}, ValueError, ["--split", "four positive numbers"]),
        ({"hr": "*/*.nii.gz", "split": "a,b,c,d"}, ValueError, ["--split a,b,c,d"]),
        ({"hr": "*/*.nii.gz", "split": (0.5, 0.5, 0, 0)}, ValueError, ["--split"]),
        ({"hr": "*/*.nii.gz", "subject": "case-(.*)"}, ValueError, ["--subject", "sub-001_t1w"]),
        ({"hr": "*/*.nii.gz"}, ValueError, ["found 3 subjects", "at least 4", "sub-001, sub-002, sub-003"]),
        ({"hr": "/data/*.nii.gz"}, ValueError, ["/data/*.nii.gz", "relative"]),
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
    with pytest.raises(ValueError, match="no entry of group 'target' holds lr"):
        load_datalist(str(tmp_path), "target", "lr")
