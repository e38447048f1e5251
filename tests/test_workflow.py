"""A part of a configuration is run again with other values, and with all that the run itself has set."""

import json
from functools import partial

import pytest
from monai.bundle import ConfigParser

from common.workflow import check_new_run, first_file, numbered_from, run_again

from .refused import refused

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


def parsed(tmp_path, entry, **override):
    """The content of an entry, as a bundle's run has it: of a file, an overlay, and overrides of the command line."""
    (tmp_path / "train.json").write_text(json.dumps(CONFIG))
    (tmp_path / "overlay.json").write_text(json.dumps({"width": 5}))
    parser = ConfigParser()
    parser.read_config([tmp_path / "train.json", tmp_path / "overlay.json"])
    parser.update(override)
    content = parser.get_parsed_content(entry)
    assert parser.get_parsed_content("stage") == 1 and parser["stage"] == 1  # the configuration itself is as it was
    assert parser.get_parsed_content("box") == {"stage": 1, "area": parser["width"], "nested": {"a": 1}}
    return content


def test_what_depends_on_a_value_is_built_anew(tmp_path):
    """Within a run an object is one, and no other run has it; overrides stay in place, and a run may run again."""
    (runs,) = parsed(tmp_path, "run")
    assert [(box["stage"], box["area"], stage) for box, stage, _ in runs] == [(1, 5, 1), (2, 10, 2), (3, 15, 3)]
    assert all(box is same for box, _, same in runs) and len({id(box) for box, *_ in runs}) == 3
    assert [box["area"] for box, *_ in parsed(tmp_path, "run", width=7, stages=[2])[0]] == [14]
    assert [box["area"] for box, *_ in parsed(tmp_path, "again")[0][0]] == [6, 12, 18]
    assert parsed(tmp_path, "inner") == [{"stage": 1, "area": 5, "nested": {"a": 5}}]


@pytest.mark.parametrize(("entry", "key"), [("wrong_id", "trian_stage"), ("wrong_key", "stgae")])
def test_a_key_that_is_not_there_is_named(tmp_path, entry, key):
    with pytest.raises(Exception) as caught:
        parsed(tmp_path, entry)
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, KeyError) and f"no key '{key}'" in str(error)


def test_files_are_found(tmp_path):
    """Those with a number from one on, past gaps; and the first that is there of several."""
    names = [f"kernels_{i}.json" for i in (1, 2, 3, 10, 12)]
    for name in (*names, "kernels_2.png", "kernels_2_mscn.png", "kernels_.json", "kernels_x.json", "other_2.json"):
        (tmp_path / name).touch()
    for first, found in ((1, names), (2, names[1:]), (4, names[3:]), (13, [])):
        assert set(numbered_from(str(tmp_path / "kernels_%d.json"), first)) == {str(tmp_path / n) for n in found}
    assert numbered_from(str(tmp_path / "nowhere" / "a_%d.pt"), 1) == []
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert first_file(a, b, c) == c
    (tmp_path / "b").touch()
    assert first_file(a, b, c) == b


@pytest.mark.parametrize(
    ("files", "options", "found"),
    [
        ([], {}, None),
        (["data/dataset.json", "table.json", "models/kernels/kernels_1.json", "losses.png"], {}, None),
        (["history.jsonl"], {}, "history.jsonl"),
        (["models/training_state.pt"], {}, "training_state.pt"),
        (["history.jsonl", "models/training_state.pt", "models/model.pt"], {}, "history.jsonl, training_state.pt, mod"),
        (["models/model.pt"], {}, "model.pt"),
        # Stage 2 goes on from what stage 1 has left, and is not begun twice.
        (["history_1.jsonl", "models/model.pt"], {"suffixes": ["_2"], "weights": False}, None),
        (["models/training_state_1.pt", "models/model.pt"], {"suffixes": ["_2"], "weights": False}, None),
        (["models/training_state_2.pt"], {"suffixes": ["_1", "_2"]}, "training_state_2.pt"),
        (["history_kernels_12.jsonl"], {"suffixes": ["_kernels_*", "_edsr"]}, "history_kernels_12.jsonl"),
    ],
)
def test_a_folder_with_another_run_is_refused(tmp_path, files, options, found):
    """Also where weights are of no run: there is nothing to continue, and a run begun anew would replace them."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    begin = partial(check_new_run, str(tmp_path), str(tmp_path / "models"), **options)
    begin(False, "true")
    if found is None:
        begin(False, False)
    else:
        refused(lambda: begin("false", False), FileExistsError, tmp_path, found, "--resume true", "--overwrite true")
    if files == ["models/model.pt"]:
        words = [f"{tmp_path}/models holds model.pt, but no run", "--overwrite true"]
        refused(lambda: begin("true", False), FileExistsError, *words)
    else:
        begin("true", False)
        begin(True, False)


def test_refused():
    refused(lambda: run_again("run"), RuntimeError, "no configuration is being run")
    refused(lambda: check_new_run(".", ".", False, False, "no.pt"), FileNotFoundError, "at no.pt", "--initial PATH")
    refused(lambda: check_new_run(".", ".", True, True), ValueError, "resume", "overwrite", "both true")
