import json

import pytest

from common.blocks import ROOT
from common.commands.datalist import write_datalist
from common.data.lists.datalist import GROUPS, load_datalist


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
def test_subjects_never_cross(tmp_path, count):
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
        write_datalist(str(tmp_path), hr="*/*.nii.gz", misaligned="true", seed=seed)
        data, groups = _groups(tmp_path)
        assert groups["source"] == groups["target"] and data["source"] == data["target"]
        assert not groups["source"] & (groups["validation"] | groups["test"])
        assert not groups["validation"] & groups["test"] and groups["validation"] and groups["test"]
        assert sum(len(groups[group]) for group in GROUPS if group != "target") == 9


def test_pairs_stand_in_source(tmp_path):
    """Where HR and LR are in register both train, drawn or by hand; who has one of them is left out."""
    _touch(tmp_path, *[f"sub-{i}_{kind}.nii.gz" for i in range(6) for kind in ("hr", "lr")], "sub-6_hr.nii.gz")
    files = {"hr": "*_hr.nii.gz", "lr": "*_lr.nii.gz", "paired": "true"}
    for by_hand in ({}, {"source": "sub-[0-3]*", "validation": "sub-4*", "test": "sub-5*"}):
        write_datalist(str(tmp_path), **files, **by_hand)
        data, groups = _groups(tmp_path)
        assert [len(groups[group]) for group in GROUPS] == [4, 0, 1, 1] and "misaligned" not in data
        assert all({"hr", "lr"} <= set(entry) for group in GROUPS for entry in data[group])
    for wrong in ({"misaligned": True}, {"lr": None}, {"hr": None}):
        with pytest.raises(ValueError, match="--paired true is for HR and LR volumes of the same subjects"):
            write_datalist(str(tmp_path), **{**files, **wrong})


CONFIGS = {path: json.loads(path.read_text()) for path in sorted(ROOT.glob("bundles/*/configs/*.json"))}


@pytest.mark.parametrize(
    "config", [c for c in CONFIGS if "simulated" in CONFIGS[c]], ids=lambda c: "/".join(c.parts[-3:])
)
def test_cohorts_of_the_configs(tmp_path, config):
    """The patterns of a simulated cohort divide its subjects."""
    simulated = CONFIGS[config]["simulated"]
    _bids(tmp_path, simulated["subjects"], simulated["contrasts"].split(","))
    write_datalist(str(tmp_path), **simulated["datalist"])
    _, groups = _groups(tmp_path)
    assert groups["validation"] and sum(map(len, groups.values())) == len(set().union(*groups.values()))


def test_authentic_lr(tmp_path):
    """LR scans of other people, of some of the HR people, of all of them: each volume where it can serve."""
    _touch(tmp_path, *[f"hr/h{i}.nii.gz" for i in range(6)], *[f"lr/l{i}.nii.gz" for i in range(4)])
    for seed in range(5):
        write_datalist(str(tmp_path), hr="hr/*.nii.gz", lr="lr/*.nii.gz", seed=seed)
        data, groups = _groups(tmp_path)
        assert groups["target"] == {"l0", "l1", "l2", "l3"} and all("lr" in entry for entry in data["target"])
        assert groups["source"] | groups["validation"] | groups["test"] == {f"h{i}" for i in range(6)}

    write_datalist(str(tmp_path), hr="hr/*.nii.gz", lr="lr/*.nii.gz", split=(1, 0, 0, 1))
    assert [len(members) for members in _groups(tmp_path)[1].values()] == [3, 0, 0, 3]

    _touch(tmp_path, "lr/h2.nii.gz", "lr/h5.nii.gz")
    write_datalist(str(tmp_path), hr="hr/*.nii.gz", lr="lr/*.nii.gz")
    data, groups = _groups(tmp_path)
    assert groups["validation"] | groups["test"] == {"h2", "h5"}
    assert {"hr", "lr"} <= set(data["validation"][0]) and {"hr", "lr"} <= set(data["test"][0])

    write_datalist(str(tmp_path), hr="hr/h*.nii.gz", lr="lr/h*.nii.gz,lr/l0.nii.gz")
    assert _groups(tmp_path)[1]["target"] == {"l0"}

    _touch(tmp_path, *[f"lr/h{i}.nii.gz" for i in range(6)])
    for misaligned in (False, True):
        write_datalist(str(tmp_path), hr="hr/h*.nii.gz", lr="lr/h*.nii.gz", misaligned=misaligned)
        data, groups = _groups(tmp_path)
        assert all("lr" not in entry for entry in data["source"]) and all("hr" not in entry for entry in data["target"])
        assert (groups["source"] == groups["target"]) == misaligned
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
    write_datalist(str(tmp_path), hr="*.nii.gz", subject=r"^(\w)_", misaligned=True, **{**arguments, "target": "a_2*"})
    assert load_datalist(str(tmp_path), "target")[0]["subject"] == load_datalist(str(tmp_path), "source")[0]["subject"]
    data, _ = _groups(tmp_path)
    with pytest.raises(ValueError, match=r"group source has no volumes: .* --hr or --ct"):
        write_datalist(str(tmp_path), hr="[b-d]*.nii.gz", lr="a*.nii.gz", subject=r"^(\w)_", **arguments)
    # A failed command leaves the file of the last good one.
    assert _groups(tmp_path)[0] == data


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, ["no --hr and no --lr pattern"]),
        ({"ct": "*/*"}, ValueError, ["no --hr and no --lr pattern"]),
        ({"hr": "*/*_t2w.nii.gz"}, FileNotFoundError, ["no files match --hr", "_t2w"]),
        ({"hr": "*/*.nii.gz", "lr": "*/*-001*"}, ValueError, ["sub-001_t1w.nii.gz", "--hr and --lr"]),
        ({"ct": "*/*.nii.gz", "hr": "*/*.nii.gz"}, ValueError, ["--hr and --ct", "exclusive"]),
        ({"hr": "*/*.nii.gz", "split": (0.8, 0.1, 0.1)}, ValueError, ["--split", "4 numbers, for source, target"]),
        ({"hr": "*/*.nii.gz", "split": "a,b,c,d"}, ValueError, ["--split a,b,c,d"]),
        ({"hr": "*/*.nii.gz", "split": (1, 1, -1, 1)}, ValueError, ["--split"]),
        ({"hr": "*/*.nii.gz", "split": "0,0,0,0"}, ValueError, ["--split", "not all 0"]),
        ({"hr": "*/*.nii.gz", "subject": "case-(.*)"}, ValueError, ["--subject", "sub-001_t1w"]),
        (
            {"hr": "*/*.nii.gz"},
            ValueError,
            ["found 3 subjects with HR volumes (sub-001, sub-002, sub-003)", "at least 4", "share of 0"],
        ),
        ({"lr": "sub-001/*.nii.gz"}, ValueError, ["found 1 subjects with LR volumes", "for target, validation."]),
        (
            {"hr": "*1/*", "lr": "*2/*", "misaligned": True},
            ValueError,
            ["found 0 subjects with HR and LR volumes (none)"],
        ),
        ({"hr": "/data/*.nii.gz"}, ValueError, ["/data/*.nii.gz", "relative"]),
        ({"lr": "*/*", "guide": "*/*"}, ValueError, ["--lr and --guide", "exclusive"]),
        (
            {"hr": "*1/*,*2/*", "guide": "*3/*", "subject": "s"},
            ValueError,
            ["--hr matches several volumes of s (sub-001"],
        ),
        ({"lr": "*/*", "test": "*/*"}, ValueError, ["test needs known HR", "sub-001, sub-002, sub-003"]),
    ],
)
def test_bad_commands(tmp_path, arguments, error, words):
    _bids(tmp_path, 3)
    with pytest.raises(error) as caught:
        write_datalist(str(tmp_path), **arguments)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "dataset.json").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("count", "split", "guide", "expected"),
    [
        (16, (7, 6, 1, 2), None, ("1 3 4 5 8 11 12", "6 7 10 13 14 15", "9", "2 16")),
        (12, (4, 4, 1, 3), None, ("3 5 8 10", "1 4 6 12", "7", "2 9 11")),
        (10, (0, 7, 1, 2), "*/*_t2w.nii.gz", ("", "3 4 5 6 7 8 10", "1", "2 9")),
    ],
)
def test_splits_stay(tmp_path, count, split, guide, expected):
    """Figures were measured with these splits, of seed 0."""
    _bids(tmp_path, count, ("t1w", "t2w"))
    write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", guide=guide, split=split)
    data, _ = _groups(tmp_path)
    found = [" ".join(str(int(entry["subject"][-3:])) for entry in data[group]) for group in GROUPS]
    assert found == list(expected)
    assert all(("guide" in entry) == bool(guide) for group in GROUPS for entry in data[group])


def test_one_file_for_every_method(tmp_path, capsys):
    """T1w, T2w and CT of ten subjects: HR with a guide in every group, and the CT of who is not evaluated in source."""
    _bids(tmp_path, 10, ("t1w", "t2w", "ct"))
    patterns = {"hr": "*/*_t2w.nii.gz", "guide": "*/*_t1w.nii.gz", "ct": "*/*_ct.nii.gz"}
    write_datalist(str(tmp_path), **patterns)
    _, groups = _groups(tmp_path)
    assert [len({e["subject"] for e in load_datalist(str(tmp_path), g, "hr")}) for g in GROUPS] == [4, 4, 1, 1]
    assert groups["source"] >= groups["target"] and not groups["source"] & (groups["validation"] | groups["test"])
    assert {e["subject"] for e in load_datalist(str(tmp_path), "source", "ct")} == groups["source"]
    for group in GROUPS:
        assert load_datalist(str(tmp_path), group, ("hr", "guide"), needs="guide" if group != "source" else None)
    both = [e for e in load_datalist(str(tmp_path), "source", ("hr", "guide", "ct")) if "hr" in e]
    assert both and all(
        e[kind].endswith(f"{e['subject']}{patterns[kind][3:]}") for e in both for kind in ("hr", "guide", "ct")
    )
    assert "source: 4 hr, 4 guide, 8 ct of 8 subjects" in capsys.readouterr().out


def test_lr_without_hr(tmp_path, capsys):
    """For the guided method target and validation share the LR scans; beside CT all of them are to learn from."""
    _bids(tmp_path, 10, ("lr", "t1w"))
    _touch(tmp_path, *[f"ct/c{i}.nii" for i in range(3)])
    arguments = {"lr": "*/*_lr.nii.gz", "guide": "*/*_t1w.nii.gz"}
    for options, sizes in (
        ({}, [0, 9, 1, 0]),
        ({"split": "4,6,9,9"}, [0, 5, 5, 0]),
        ({"ct": "ct/*"}, [3, 9, 1, 0]),
        ({"ct": "ct/*", "guide": None}, [3, 10, 0, 0]),
        ({"guide": None}, [0, 9, 1, 0]),
    ):
        write_datalist(str(tmp_path), **{**arguments, **options})
        data, groups = _groups(tmp_path)
        assert [len(groups[group]) for group in GROUPS] == sizes
        guided = {**arguments, **options}["guide"] is not None
        assert all("lr" in entry and ("guide" in entry) == guided for entry in data["target"] + data["validation"])
    assert "test: none" in capsys.readouterr().out


def test_hr_of_few(tmp_path):
    """Guides or CT and LR scans of ten, HR of two: these are evaluated on, and source goes without HR."""
    _bids(tmp_path, 10, ("lr", "t1w", "ct"))
    _touch(tmp_path, "hr/sub-003.nii.gz", "hr/sub-007.nii.gz")
    for options in ({"guide": "*/*_t1w.nii.gz"}, {"ct": "*/*_ct.nii.gz"}, {"split": (0, 8, 1, 1)}):
        write_datalist(str(tmp_path), hr="hr/*", lr="*/*_lr.nii.gz", **options)
        data, groups = _groups(tmp_path)
        assert len(groups["target"]) == 8 and groups["validation"] | groups["test"] == {"sub-003", "sub-007"}
        assert all({"hr", "lr"} <= set(entry) for entry in data["validation"] + data["test"])
        assert groups["source"] == (groups["target"] if "ct" in options else set())
        assert all(set(entry) == {"ct", "subject"} for entry in data["source"])
    with pytest.raises(
        ValueError, match=r"found 2 subjects with HR and LR volumes .* one each for source, validation, test"
    ):
        write_datalist(str(tmp_path), hr="hr/*", lr="*/*_lr.nii.gz")


def test_guided_partners(tmp_path):
    """A scan without guide, a guide without scan, and two scans of one subject are listed by subject."""
    _bids(tmp_path, 4, ("t2w",))
    _touch(tmp_path, *[f"g/sub-00{i}.nii.gz" for i in (1, 2, 4)])
    arguments = {"lr": "sub-*/*_t2w.nii.gz", "guide": "g/*"}
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


def test_test_alone_by_hand(tmp_path):
    """To evaluate weights that are there: nobody trains, so the other groups stay empty."""
    _touch(tmp_path, "hr/a.nii", "hr/b.nii", "hr/c.nii")
    write_datalist(str(tmp_path), hr="hr/*", test="*/[ab].nii")
    _, groups = _groups(tmp_path)
    assert groups.pop("test") == {"a", "b"} and not any(groups.values())
    assert [entry["hr"] for entry in load_datalist(str(tmp_path), "test")] == [
        str(tmp_path / f"hr/{n}.nii") for n in "ab"
    ]


def test_every_kind_by_hand(tmp_path, capsys):
    _touch(tmp_path, *[f"{kind}/{name}.nii" for kind in ("hr", "lr", "guide", "ct") for name in "abcde"])
    patterns = {kind: f"{kind}/*" for kind in ("hr", "lr", "guide", "ct")}
    by_hand = {"source": "*/a.nii,ct/b.nii", "target": "*/b.nii", "validation": "lr/c.nii"}
    write_datalist(str(tmp_path), **patterns, **by_hand, test="*/d.nii")

    def entry(name, *kinds):
        return {**{kind: f"{kind}/{name}.nii" for kind in kinds}, "subject": name}

    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "source": [entry("a", "hr", "guide", "ct"), entry("b", "ct")],
        "target": [entry("b", "lr", "guide")],
        "validation": [entry("c", "lr", "guide")],
        "test": [entry("d", "hr", "lr", "guide")],
    }
    assert "in no group: e" in capsys.readouterr().out
    with pytest.raises(ValueError, match="test needs known HR, but holds LR volumes without it of d: "):
        write_datalist(str(tmp_path), **patterns, **by_hand, test="lr/d.nii")
    for group in ("validation", "test"):
        with pytest.raises(ValueError, match=f"subjects b are in source and in {group}"):
            write_datalist(str(tmp_path), **patterns, **{**by_hand, "target": None, group: "hr/b.nii"})
    with pytest.raises(ValueError, match="group target has no volumes"):
        write_datalist(str(tmp_path), **patterns, **{**by_hand, "target": "ct/b.nii"})
    with pytest.raises(ValueError, match="gets none of the CT"):
        write_datalist(str(tmp_path), **patterns, **{**by_hand, "source": "hr/a.nii"})


def test_ambiguous_pairs(tmp_path):
    """Which of two HR volumes an LR one belongs to is not known, so that it cannot be tested on."""
    _touch(
        tmp_path,
        *[f"{kind}/sub-{i}{run}.nii" for i in range(4) for kind, run in (("hr", ""), ("hr", "_2"), ("lr", ""))],
    )
    with pytest.raises(ValueError, match="holds LR volumes without it of sub-"):
        write_datalist(str(tmp_path), hr="hr/*", lr="lr/*")
