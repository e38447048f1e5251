"""A part of a configuration is run again with other values, and with all that the run itself has set."""

import json

import pytest
from monai.bundle import ConfigParser

from common.workflow import check_new_run, first_file, numbered_from, parts_of, run_again

CONFIG = {
    "imports": ["$import math", "$from common.workflow import run_again"],
    "stage": 1,
    "width": 2,
    "stages": "$list(range(1, 4))",
    "area": "$math.prod((@stage, @width))",
    "box": {"_target_": "collections.OrderedDict", "stage": "@stage", "area": "@area", "nested": {"a": 1}},
    "initialize": ["$1 / 0"],
    "train_stage": ["$@box", "$@box['stage'] + 0 * @area", "$@box"],
    "run": ["$[run_again('train_stage', stage=k) for k in @stages]"],
    "again": ["$run_again('run', width=@width + 1)"],
    "inner": ["$run_again('box', **{'box#nested#a': 5})"],
    "wrong_id": ["$run_again('trian_stage')"],
    "wrong_key": ["$run_again('train_stage', stages=[1], stgae=2)"],
}


def parser_of(tmp_path, **override):
    """As a bundle's run has it: a file, an overlay, and overrides of the command line."""
    (tmp_path / "train.json").write_text(json.dumps(CONFIG))
    (tmp_path / "overlay.json").write_text(json.dumps({"width": 5}))
    parser = ConfigParser()
    parser.read_config([tmp_path / "train.json", tmp_path / "overlay.json"])
    parser.update(override)
    return parser


def test_what_depends_on_a_value_is_built_anew(tmp_path):
    parser = parser_of(tmp_path)
    (runs,) = parser.get_parsed_content("run")
    assert [(box["stage"], box["area"], stage) for box, stage, _ in runs] == [(1, 5, 1), (2, 10, 2), (3, 15, 3)]
    # Within a run an object is one, and no other run has it.
    assert all(box is same for box, _, same in runs)
    assert len({id(box) for box, *_ in runs}) == 3
    # The configuration itself is as it was.
    assert parser.get_parsed_content("stage") == 1 and parser["stage"] == 1
    assert parser.get_parsed_content("box") == {"stage": 1, "area": 5, "nested": {"a": 1}}


def test_overrides_stay_in_place(tmp_path):
    (runs,) = parser_of(tmp_path, width=7, stages=[2]).get_parsed_content("run")
    assert [box["area"] for box, *_ in runs] == [14]


def test_a_run_again_may_run_again(tmp_path):
    ((runs,),) = parser_of(tmp_path).get_parsed_content("again")
    assert [box["area"] for box, *_ in runs] == [6, 12, 18]


def test_a_value_within_another_may_be_set(tmp_path):
    (box,) = parser_of(tmp_path).get_parsed_content("inner")
    assert box == {"stage": 1, "area": 5, "nested": {"a": 5}}


@pytest.mark.parametrize(("entry", "key"), [("wrong_id", "trian_stage"), ("wrong_key", "stgae")])
def test_a_key_that_is_not_there_is_named(tmp_path, entry, key):
    with pytest.raises(Exception) as error:
        parser_of(tmp_path).get_parsed_content(entry)
    causes = [error.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], KeyError) and f"no key '{key}'" in str(causes[-1])


def test_outside_of_a_configuration_there_is_nothing_to_run():
    with pytest.raises(RuntimeError, match="no configuration is being run"):
        run_again("run")


@pytest.mark.parametrize(("count", "most", "parts"), [(5, 2, 3), (4, 2, 2), (1, 64, 1), (0, 3, 0), (3, 1, 3)])
def test_entries_are_divided_into_parts_of_at_most_so_many(count, most, parts):
    entries = list(range(count))
    found = parts_of(entries, most)
    assert found == list(range(1, parts + 1))
    # As the bundles cut them: none is lost, and no part is empty.
    cut = [entries[(part - 1) * most : part * most] for part in found]
    assert [entry for part in cut for entry in part] == entries and all(cut)


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "2"])
def test_parts_of_nothing_are_refused(most):
    with pytest.raises(ValueError, match=r"batch_volumes is .* expected a whole number, 1 or more"):
        parts_of([1, 2], most)


def test_numbered_files_are_found_from_a_number_on(tmp_path):
    names = [f"kernels_{i}.json" for i in (1, 2, 3, 10, 12)]
    for name in (*names, "kernels_2.png", "kernels_2_mscn.png", "kernels_.json", "kernels_x.json", "other_2.json"):
        (tmp_path / name).touch()
    pattern = str(tmp_path / "kernels_%d.json")
    for first, found in ((1, names), (2, names[1:]), (4, names[3:]), (13, [])):  # 4 to 9 are gaps
        assert set(numbered_from(pattern, first)) == {str(tmp_path / name) for name in found}
    assert numbered_from(str(tmp_path / "nowhere" / "a_%d.pt"), 1) == []


def run_folder(tmp_path, *files):
    """Folders of a run with these files; the first of them is that of the weights."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    return str(tmp_path), str(tmp_path / "models")


@pytest.mark.parametrize(
    ("files", "kwargs", "found"),
    [
        ((), {}, None),
        (("data/dataset.json", "table.json", "models/kernels/kernels_1.json", "losses.png"), {}, None),
        (("history.jsonl",), {}, "history.jsonl"),
        (("models/training_state.pt",), {}, "training_state.pt"),
        (("history.jsonl", "models/training_state.pt", "models/model.pt"), {}, "history.jsonl, training_state.pt, mod"),
        (("models/model.pt",), {}, "model.pt"),
        # Stage 2 goes on from what stage 1 has left, and is not begun twice.
        (
            ("history_1.jsonl", "models/training_state_1.pt", "models/model.pt"),
            {"suffixes": ["_2"], "weights": False},
            None,
        ),
        (("models/training_state_2.pt",), {"suffixes": ["_1", "_2"]}, "training_state_2.pt"),
        (("history_kernels_12.jsonl",), {"suffixes": ["_kernels_*", "_edsr"]}, "history_kernels_12.jsonl"),
    ],
)
def test_a_folder_with_another_run_is_refused(tmp_path, files, kwargs, found):
    folders = run_folder(tmp_path, *files)
    check_new_run(*folders, False, "true", **kwargs)
    if found is None:
        check_new_run(*folders, False, False, **kwargs)
        check_new_run(*folders, "true", False, **kwargs)
        return
    with pytest.raises(FileExistsError, match=rf"{tmp_path}.*{found}.*--resume true.*--overwrite true"):
        check_new_run(*folders, "false", False, **kwargs)
    if files == ("models/model.pt",):
        # Weights of no run: there is nothing to continue, and a run begun anew would replace them.
        with pytest.raises(FileExistsError, match=rf"{tmp_path}/models holds model.pt, but no run.*--overwrite true"):
            check_new_run(*folders, True, False, **kwargs)
    else:
        check_new_run(*folders, True, False, **kwargs)


def test_a_run_that_cannot_begin_is_refused(tmp_path):
    folders = run_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.pt; name a file with --initial PATH"):
        check_new_run(*folders, False, False, str(tmp_path / "none.pt"))
    with pytest.raises(ValueError, match="resume and overwrite are both true"):
        check_new_run(*folders, True, True)


def test_the_first_file_that_is_there(tmp_path):
    paths = [str(tmp_path / name) for name in "abc"]
    assert first_file(*paths) == paths[2]
    (tmp_path / "b").write_text("")
    assert first_file(*paths) == paths[1]
