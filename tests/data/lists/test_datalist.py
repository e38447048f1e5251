import json

import pytest

from common.commands.datalist import write_datalist
from common.data.lists.datalist import GROUPS, as_hr, as_lr, cross_validation, load_datalist, only_case, only_hr


def _touch(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def _bids(root, count, contrasts=("t1w",)):
    _touch(root, *[f"sub-{i:03d}/sub-{i:03d}_{c}.nii.gz" for i in range(1, count + 1) for c in contrasts])


def _listed(root, **data):
    """A dataset.json with these contents, and its files, empty; the folder's name."""
    entries = [entry for group in data.values() if isinstance(group, list) for entry in group]
    _touch(root, *[path for entry in entries for kind, path in entry.items() if kind != "subject"])
    (root / "dataset.json").write_text(json.dumps(data))
    return str(root)


def _groups(root):
    data = json.loads((root / "dataset.json").read_text())
    return data, {group: {entry["subject"] for entry in data[group]} for group in GROUPS}


def _scan(name, kind="hr"):
    return {kind: f"{kind}/{name}.nii", "subject": name}


def test_load(tmp_path):
    everything = {kind: f"{kind}/a.nii" for kind in ("hr", "lr", "guide", "ct")}
    data = _listed(tmp_path, source=[{**everything, "subject": "a"}, _scan("b", "ct"), _scan("c")])
    paths = {kind: str(tmp_path / path) for kind, path in everything.items()}
    for kinds, subjects in (("hr", "ac"), ("ct", "ab"), (("lr", "guide"), "a"), (("guide", "ct", "hr"), "abc")):
        entries = load_datalist(data, "source", kinds)
        assert [entry["subject"] for entry in entries] == list(subjects)
        assert entries[0] == {**{kind: paths[kind] for kind in paths if kind in kinds}, "subject": "a"}
    # Guides and CT come only to who asks for them.
    assert load_datalist(data, "source")[0] == {"hr": paths["hr"], "lr": paths["lr"], "subject": "a"}


@pytest.mark.parametrize(
    ("change", "group", "error", "words"),
    [
        ("", "source", FileNotFoundError, ["dataset.json does not exist", "python -m common datalist --dataset_dir"]),
        ("{", "source", ValueError, ["dataset.json is not valid JSON", "python -m common datalist --dataset_dir"]),
        ("{}", "source", ValueError, ["group 'source' has no volumes of the kind hr or lr", "no volumes at all"]),
        ("[]", "source", ValueError, ["dataset.json: expected an object", "found a list"]),
        ({"target": {"hr": "b.nii"}}, "source", ValueError, ["dataset.json: target is {'hr'", "expected a list"]),
        ({"target": [{"hr": ["b.nii"]}]}, "source", ValueError, ["dataset.json: target[0], hr is ['b.nii']", "path"]),
        ({}, "train", ValueError, ["'train'", "source, target, validation, test"]),
        ({"target": [{"image": "b.nii"}]}, "source", ValueError, ["target[0]", "image", '"hr", "lr" or "ct"']),
        ({"target": [{"guide": "b.nii"}]}, "source", ValueError, ["target[0]", "guide"]),
        ({"target": ["b.nii"]}, "target", ValueError, ["target[0]"]),
        ({"setting": "paired"}, "source", ValueError, ["'paired'", "python -m common datalist --dataset_dir"]),
        (
            {"test": [{"hr": "a.nii", "subject": "a"}], "misaligned": True},
            "source",
            ValueError,
            ["subjects a are in source and in test"],
        ),
        (
            {"target": [{"lr": "a.nii", "subject": "a"}]},
            "source",
            ValueError,
            ["subjects a are in source and in target", '"misaligned": true', "--misaligned true"],
        ),
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


def test_bad_folders():
    for call in (load_datalist, write_datalist):
        with pytest.raises(ValueError, match="dataset_dir is empty"):
            call("", "source")
        with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
            call("nowhere", "source")


def test_what_is_missing_and_the_command_that_adds_it(tmp_path):
    """LR scans, half of them with guides, and CT: no HR anywhere."""
    guided = {**_scan("g", "lr"), "guide": "guide/g.nii"}
    data = _listed(
        tmp_path, source=[_scan("c", "ct")], target=[guided, _scan("t", "lr")], validation=[_scan("v", "lr")]
    )
    command = rf"python -m common datalist --dataset_dir {tmp_path} "
    for group, kinds, needs, found in (
        (
            "source",
            "hr",
            None,
            r"'source' has no volumes of the kind hr, .* needs; found source 1 ct; target 2 lr, 1 guide;",
        ),
        ("target", "hr", None, "'target' has no volumes of the kind hr,"),
        ("target", ("hr", "lr"), "hr", "no hr for g, t in group 'target'; add it, or leave"),
        ("test", ("hr", "lr"), "hr", "'test' has no volumes of the kind hr or lr"),
    ):
        with pytest.raises(
            ValueError, match=f"{found}.*{command}--hr PATTERN --lr PATTERN --guide PATTERN --ct PATTERN"
        ):
            load_datalist(data, group, kinds, needs)
    assert load_datalist(data, "validation", ("hr", "lr"), "hr", optional=True) == []
    assert load_datalist(data, "test", optional=True) == []
    some = _listed(tmp_path / "some", validation=[_scan("a"), _scan("b", "lr")])
    assert [entry["subject"] for entry in load_datalist(some, "validation", needs="hr", optional=True)] == ["a"]

    data = _listed(tmp_path, target=[_scan("a"), _scan("b")])
    with pytest.raises(ValueError, match=f"no guide for a, b .*--guided false.*{command}--hr PATTERN --guide PATTERN "):
        load_datalist(data, "target", ("hr", "lr", "guide"), "guide")
    with pytest.raises(
        ValueError, match=f"'source' has no volumes of the kind ct, .*{command}--hr PATTERN --ct PATTERN "
    ):
        load_datalist(data, "source", "ct")
    with pytest.raises(ValueError, match="'target' has no volumes of the kind lr,"):  # its guide is no scan
        load_datalist(data, "target", ("lr", "guide"))


def test_earlier_files(tmp_path):
    """Each setting that there was, as its files were written."""
    pair = {"hr": "hr/t.nii", "lr": "lr/t.nii", "guide": "guide/t.nii", "subject": "t"}
    data = _listed(tmp_path / "guided", setting="guided", train=[pair], validation=[_scan("v", "lr")], test=[])
    (entry,) = load_datalist(data, "target", ("hr", "lr", "guide"), "guide")
    assert entry == {**{kind: str(tmp_path / "guided" / pair[kind]) for kind in ("hr", "lr", "guide")}, "subject": "t"}
    assert load_datalist(data, "source", optional=True) == []

    data = _listed(tmp_path / "ct", setting="cross_modality", source=[_scan("a")], target=[_scan("a", "lr")])
    assert load_datalist(data, "source", "ct") == [{"ct": str(tmp_path / "ct/hr/a.nii"), "subject": "a"}]
    with pytest.raises(ValueError, match="'source' has no volumes of the kind hr,"):  # CT is not taken for MR
        load_datalist(data, "source", "hr")

    shared = {"source": [_scan("a")], "target": [_scan("a", "lr")]}
    assert load_datalist(_listed(tmp_path / "mis", setting="misaligned", **shared), "target")
    with pytest.raises(ValueError, match="subjects a are in source and in target"):
        load_datalist(_listed(tmp_path / "un", setting="unpaired", **shared), "target")


def test_ct_beside_mr(tmp_path):
    """A subject's CT may train beside its MR, and not where its MR is evaluated."""
    assert load_datalist(_listed(tmp_path, source=[_scan("a", "ct")], target=[_scan("a")]), "source", "ct")
    for group in ("validation", "test"):
        data = _listed(tmp_path, source=[_scan("a", "ct")], **{group: [_scan("a")]})
        with pytest.raises(ValueError, match=f"subjects a are in source and in {group}"):
            load_datalist(data, "source", "ct")


def test_cross_validation(tmp_path):
    """Every subject with known HR is held out once, with all its entries, and never trained on in that fold."""
    target = [{**_scan(name), "hr": f"hr/{name}{run}.nii"} for run, name in enumerate("AACDEF")]
    target[0]["guide"] = "guide/A.nii"
    data = _listed(tmp_path, target=target, test=[_scan("G"), _scan("H")])
    times = []
    for fold in range(3):
        held = cross_validation(data, 3, fold, True)
        rest = cross_validation(data, 3, fold, False)
        assert not {e["subject"] for e in held} & {e["subject"] for e in rest} and len(held) + len(rest) == 8
        times += [entry["subject"] for entry in held]
        assert len({entry["subject"] for entry in held}) in (2, 3)
    assert sorted(times) == list("AACDEFGH")

    with pytest.raises(ValueError, match=r"found 7 subjects with known HR in source, target and test .* for 8 folds"):
        cross_validation(data, 8, 0, True)
    for folds, fold in ((3, 3), (3, -1), (1, 0)):
        with pytest.raises(ValueError, match=f"fold {fold} of {folds}; expected 2 folds or more, counted from 0"):
            cross_validation(data, folds, fold, True)
    with pytest.raises(ValueError, match=r"no guide for .*C.* in the training part of fold 0"):
        cross_validation(data, 7, 0, False, ("hr", "guide"), "guide")


def test_cross_validation_over_everybody(tmp_path):
    """A group that the command is told to leave empty takes no subjects from the folds."""
    _bids(tmp_path, 20)
    write_datalist(str(tmp_path), hr="*/*", split=(0, 4, 0, 1))
    held = [entry["subject"] for fold in range(4) for entry in cross_validation(str(tmp_path), 4, fold, True)]
    assert sorted(held) == [f"sub-{i:03d}" for i in range(1, 21)]


@pytest.mark.parametrize("misaligned", [False, True])
def test_cross_validation_pools_source_target_and_test(tmp_path, misaligned):
    """Two scans of each of 12 subjects, listed twice where source and target share them; validation stays out."""
    _bids(tmp_path, 12, ("t1w", "run2_t1w", "ct"))
    write_datalist(str(tmp_path), hr="*/*_t1w.nii.gz", ct="*/*_ct.nii.gz", misaligned=misaligned)
    data, groups = _groups(tmp_path)
    pooled = {entry["hr"] for group in GROUPS if group != "validation" for entry in data[group] if "hr" in entry}
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
    write_datalist(str(tmp_path), hr="*/*_hr.nii.gz", lr="*/*_lr.nii.gz", misaligned=True)
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
    data, _ = _groups(tmp_path)
    for i, entry in enumerate(data["source"][:]):
        data["source"].append({**entry, "hr": f"again/{i}.nii"})
    with pytest.raises(ValueError, match=r"no hr for sub-.* in the held-out part of fold 0"):
        cross_validation(_listed(tmp_path, **data), 5, 0, True, ("hr", "lr"), "hr")


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


def test_cross_validation_trains_with_the_ct_of_who_is_not_held_out(tmp_path):
    """CT of others, and of all subjects with MR; among the MR entries there is none."""
    _touch(
        tmp_path, *[f"{kind}/m{i}.nii" for i in range(9) for kind in ("hr", "ct")], "ct/c.nii", "lr/l.nii", "ct/l.nii"
    )
    write_datalist(str(tmp_path), hr="hr/*", lr="lr/*", ct="ct/*")
    _, groups = _groups(tmp_path)
    assert groups["validation"]
    for fold in range(3):
        held = {entry["subject"] for entry in cross_validation(str(tmp_path), 3, fold, True, needs="hr")}
        rest = cross_validation(str(tmp_path), 3, fold, False)
        ct = cross_validation(str(tmp_path), 3, fold, False, "ct")
        assert all(entry["ct"] == str(tmp_path / f"ct/{entry['subject']}.nii") and len(entry) == 2 for entry in ct)
        assert {entry["subject"] for entry in ct} == groups["source"] - held and {"c", "l"} <= groups["source"]
        assert held & groups["source"] and not any("ct" in entry for entry in rest)
        assert {"lr": str(tmp_path / "lr/l.nii"), "subject": "l"} in rest  # it is never held out


def test_only_hr():
    entries = [{"hr": "a", "lr": "b", "subject": "s"}, {"lr": "c", "subject": "t"}]
    assert only_hr(entries) == [{"hr": "a", "subject": "s"}]
    with pytest.raises(ValueError, match="found 1 scans and no HR volume of them"):
        only_hr(entries[1:])


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


def test_entries_as_hr_scans_are_their_ct_alone():
    assert as_hr([{"hr": "a", "ct": "c", "guide": "g", "subject": "1"}]) == [{"hr": "c", "subject": "1"}]
