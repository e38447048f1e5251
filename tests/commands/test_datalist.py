import json

import pytest

from common.commands.datalist import write_datalist
from common.data.lists.datalist import SETTINGS, load_datalist

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
        ({"hr": "*/*", "ct": "*/*"}, ValueError, ["--ct in the unpaired setting", "--setting cross_modality"]),
        ({"setting": "cross_modality", "hr": "*/*"}, ValueError, ["no --ct pattern"]),
        ({"setting": "cross_modality", "ct": "*/*"}, ValueError, ["no --hr and no --lr pattern"]),
        ({"setting": "cross_modality", "ct": "*/*", "hr": "*/*"}, ValueError, ["--hr and --ct", "exclusive"]),
        ({"setting": "cross_modality", "train": "*/*"}, ValueError, ["--train: no group of the cross_modality"]),
    ],
)
def test_bad_commands(tmp_path, arguments, error, words):
    _bids(tmp_path, 3)
    with pytest.raises(error) as caught:
        write_datalist(str(tmp_path), **arguments)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "dataset.json").exists() and not list(tmp_path.glob(".*"))


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


@pytest.mark.parametrize("setting", ["unpaired", "guided"])
def test_test_alone_by_hand(tmp_path, setting):
    """To evaluate weights that are there: nobody trains, so the other groups stay empty."""
    _touch(tmp_path, "hr/a.nii", "hr/b.nii", "hr/c.nii")
    write_datalist(str(tmp_path), hr="hr/*", setting=setting, test="*/[ab].nii")
    _, groups = _groups(tmp_path)
    assert groups.pop("test") == {"a", "b"} and not any(groups.values())
    assert [entry["hr"] for entry in load_datalist(str(tmp_path), "test")] == [
        str(tmp_path / f"hr/{n}.nii") for n in "ab"
    ]
    with pytest.raises(ValueError, match=r"group '.*' has no volumes; found groups with volumes: test"):
        load_datalist(str(tmp_path), "validation")


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


def _cross(root, **options):
    """The datalist of the cross-modality setting: what is in which group."""
    patterns = {kind: f"{kind}/*" for kind in ("ct", "hr", "lr") if (root / kind).is_dir()}
    write_datalist(str(root), setting="cross_modality", **{**patterns, **options})
    return _groups(root)


def test_cross_modality_deals_mr_and_trains_with_the_ct_of_the_others(tmp_path):
    """20 MR subjects, all with LR and 6 with HR; CT of 15 of them and of 2 others."""
    _touch(tmp_path, *[f"lr/sub-{i:02d}.nii" for i in range(20)], *[f"hr/sub-{i:02d}.nii" for i in range(6)])
    _touch(tmp_path, *[f"ct/sub-{i:02d}.nii" for i in [*range(15), 30, 31]])
    ct = {f"sub-{i:02d}" for i in [*range(15), 30, 31]}
    drawn = set()
    for seed in range(10):
        data, groups = _cross(tmp_path, seed=seed)
        assert [len(groups[group]) for group in GROUPS[1:]] == [16, 2, 2]
        held = groups["validation"] | groups["test"]
        assert len(held) == 4 and held <= {f"sub-{i:02d}" for i in range(6)} and not held & groups["target"]
        assert groups["source"] == ct - held and groups["source"] & groups["target"]
        for name in groups["source"]:
            assert {"hr": f"ct/{name}.nii", "subject": name} in data["source"]
        assert all(
            entry == {"lr": f"lr/{entry['subject']}.nii", "subject": entry["subject"]} for entry in data["target"]
        )
        assert all({"hr", "lr"} <= set(entry) for entry in data["validation"] + data["test"])
        drawn.add((tmp_path / "dataset.json").read_text())
        _cross(tmp_path, seed=seed, split="8,1,1")
        assert (tmp_path / "dataset.json").read_text() in drawn
    assert len(drawn) > 5
    # More is asked for than has known HR: these are shared out as validation and test are to each other.
    assert [len(members) for members in _cross(tmp_path, split=(1, 1, 2))[1].values()][1:] == [14, 2, 4]


def test_cross_modality_without_lr_or_without_hr(tmp_path, capsys):
    _touch(tmp_path, *[f"ct/c{i}.nii" for i in range(3)], *[f"mr/m{i}.nii" for i in range(10)])
    data, groups = _cross(tmp_path, hr="mr/*")
    assert [len(groups[group]) for group in GROUPS] == [3, 8, 1, 1]
    assert all(set(entry) == {"hr", "subject"} for group in GROUPS for entry in data[group])
    capsys.readouterr()
    for split in (None, (0.7, 0.2, 0.1)):
        data, groups = _cross(tmp_path, lr="mr/*", split=split)
        assert groups["target"] == {f"m{i}" for i in range(10)} and data["validation"] == data["test"] == []
    printed = capsys.readouterr().out
    assert "validation: none, as no HR volume is known" in printed and "test: none, as no HR volume" in printed


def test_cross_modality_by_hand(tmp_path, capsys):
    """A subject's CT may train beside its MR, and not where its MR is evaluated; evaluation may be left out."""
    _touch(tmp_path, *[f"{kind}/{name}.nii" for kind in ("ct", "hr", "lr") for name in "abcd"])
    arguments = {"source": "*/[ab].nii", "target": "*/a.nii"}
    data, _ = _cross(tmp_path, **arguments, test="*/d.nii")
    assert data == {
        "setting": "cross_modality",
        "source": [{"hr": f"ct/{name}.nii", "subject": name} for name in "ab"],
        "target": [{"lr": "lr/a.nii", "subject": "a"}],
        "validation": [],
        "test": [{"hr": "hr/d.nii", "lr": "lr/d.nii", "subject": "d"}],
    }
    printed = capsys.readouterr().out
    assert "validation: none, as --validation is not given" in printed and "in no group: c" in printed
    data, _ = _cross(tmp_path, **arguments)
    assert data["validation"] == data["test"] == []
    for group in ("validation", "test"):
        with pytest.raises(ValueError, match=f"subjects b are in source and in {group}; in the cross_modality setting"):
            _cross(tmp_path, **arguments, **{group: "hr/b.nii"})
        with pytest.raises(ValueError, match=f"subjects a are in target and in {group}"):
            _cross(tmp_path, **{**arguments, "source": "*/b.nii"}, **{group: "hr/a.nii"})
        with pytest.raises(ValueError, match=f"--{group} without --hr; {group} needs known HR"):
            _cross(tmp_path, **arguments, hr=None, **{group: "lr/d.nii"})
        with pytest.raises(ValueError, match=f"{group} needs known HR, but holds LR volumes without it of d: "):
            _cross(tmp_path, **arguments, **{group: "*r/[cd].nii", "hr": "hr/[abc].nii"})
    with pytest.raises(ValueError, match="missing: --target"):
        _cross(tmp_path, source="*/a.nii")
    with pytest.raises(ValueError, match="source has no volumes: none of its files matches --ct"):
        _cross(tmp_path, source="hr/a.nii", target="*/b.nii")
    with pytest.raises(ValueError, match="group target has no volumes"):
        _cross(tmp_path, source="*/a.nii", target="ct/b.nii")


def test_cross_modality_with_too_little(tmp_path):
    _touch(tmp_path, *[f"lr/{name}.nii" for name in "abc"], "hr/a.nii", "ct/a.nii")
    with pytest.raises(ValueError, match=r"found 3 MR subjects \(a, b, c\), 1 of them with HR volumes, but at least 3"):
        _cross(tmp_path)
    _touch(tmp_path, "hr/b.nii")
    with pytest.raises(ValueError, match=r"source has no volumes: .* all CT is of subjects in validation or test"):
        _cross(tmp_path)
    with pytest.raises(ValueError, match=r"--split 1,2; expected 3 positive numbers, for target, validation, test"):
        _cross(tmp_path, split="1,2")
    # Which of two HR volumes an LR one belongs to is not known.
    _touch(tmp_path, "ct/c.nii", "hr/again_sub-a.nii", "lr/sub-a.nii", "hr/sub-a.nii", "hr/sub-b.nii", "lr/sub-c.nii")
    with pytest.raises(ValueError, match="holds LR volumes without it of sub-a"):
        _cross(tmp_path, hr="hr/*sub*", lr="lr/sub*")
