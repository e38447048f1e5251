"""Groups of a datalist: which entries each gives, and when they are read."""

import pytest

from common.data import Datalist, Group, choose_default_slice_axis, pair_contrasts
from tests.bundles import runs
from tests.refused import refused


@pytest.fixture
def listed(tmp_path):
    """A function that writes a datalist of empty files, and gives it as a :class:`Datalist`."""

    def entry(name):
        kinds = name.split("_")[1:] or ["hr"]
        files = {kind: tmp_path / f"sub-{name}_{kind}.nii.gz" for kind in kinds}
        for file in files.values():
            file.touch()
        return files

    def write(misaligned=False, fold=None, folds=5, **names):
        entries = {group: [entry(name) for name in members] for group, members in names.items()}
        return Datalist(str(runs.datalist(tmp_path, **entries)), fold, folds, misaligned)

    return write


def subjects(*args, **options):
    return [entry["subject"].removeprefix("sub-") for entry in Group(*args, **options)]


def test_entries_of_a_group(listed):
    data = listed(source=["a", "b_hr_lr"], target=["c_lr", "d"], validation=["e"], test=["f_hr_guide", "g_hr_guide"])
    assert subjects(data, "source", needs="hr", copies=3) == ["a", "a", "a", "b"]
    assert subjects(data, "target", kinds="hr") == ["d"]
    assert [set(entry) for entry in Group(data, "test", guided="True")] == [{"hr", "guide", "subject"}] * 2
    refused(lambda: subjects(data, "target", guided=True), ValueError, "no guide for sub-c, sub-d")
    for name in ("validation", "test"):
        assert subjects(data, name, case=1, case_group="test") == ["g"]
    assert subjects(data, "test", select=lambda entries: entries[1:]) == ["g"]


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    group = Group(Datalist(str(tmp_path / "none")), "source")
    refused(lambda: len(group), FileNotFoundError, "none is not a folder")


def test_a_fold_holds_out_and_finds_something_to_validate_with(listed):
    names = {"source": ["a", "b"], "target": ["c"], "test": ["d"]}
    refused(lambda: subjects(listed(**names), "validation"), ValueError, "'validation' has no volumes")
    assert not subjects(listed(**names), "validation", optional=True)
    fold = listed(fold=1, folds=2, **names)
    train, test = subjects(fold, "source"), subjects(fold, "test")
    assert sorted(train + test) == ["a", "b", "c", "d"] and len(test) == 2
    assert subjects(fold, "validation") == train[:1] and not subjects(fold, "validation", folded=False)
    assert subjects(listed(fold=1, folds=2, validation=["e"], **names), "validation") == ["e"]


def test_what_is_moved_must_be_misaligned(listed):
    refused(lambda: subjects(listed(misaligned="True", source=["a"]), "source"), ValueError, "not of a misaligned")


def test_the_axis_across_the_slices_of_what_does_not_show_it(tmp_path):
    assert [choose_default_slice_axis(folder) for folder in (None, str(tmp_path))] == ["SI", "auto"]
    assert [choose_default_slice_axis(str(tmp_path), factors) for factors in ([2, 2, 2], [2, 2, 1])] == ["SI", "auto"]
    (tmp_path / "simulated.json").touch()
    assert choose_default_slice_axis(str(tmp_path)) == "SI"


def test_contrasts_take_turns():
    entries = [{"hr": "x/a_t1w.nii", "guide": "x/a_t2w.nii", "subject": "a"}, {"guide": "b_t2w.nii"}]
    found = pair_contrasts(entries, [["t1w", "t2w"], ["t2w", "pd"]])
    assert [(entry.get("hr"), entry["guide"]) for entry in found] == [
        ("x/a_t1w.nii", "x/a_t2w.nii"), ("x/a_t2w.nii", "x/a_pd.nii"), (None, "b_t2w.nii"), (None, "b_pd.nii")
    ]  # fmt: skip
