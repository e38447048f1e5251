"""What the command line of ``python -m monai.bundle run`` may hold, and what is said of the rest."""

import json
import sys

import pytest

from common import command_line
from common.command_line import check, check_whole, is_true

RUN = ["/site-packages/monai/bundle/__main__.py", "run"]


@pytest.fixture(autouse=True)
def own_excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def files(tmp_path):
    config = {
        "dataset_dir": "data",
        "max_epochs": 3,
        "learning_rate": 0.1,
        "players": {"generator": {"optimizer": {"lr": "@learning_rate"}, "losses": [{"weight": 1.0}]}},
        "train": {"trainer": {"max_epochs": "@max_epochs"}},
        "graph": {"steps": {"lr_fake": ["lr_decoder", "hr"]}},
    }
    paths = [tmp_path / "train.json", tmp_path / "demo.json"]
    paths[0].write_text(json.dumps(config))
    paths[1].write_text(json.dumps({"cohort_size": 3, "graph#steps#hr_self": ["sr_decoder", "hr"]}))
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    "words",
    [
        ["--max_epochs", "5", "--dataset_dir", "/data"],
        ["--max_epochs=5"],
        ["--learning_rate", "-1"],
        ["--max-epochs", "5"],  # fire takes it for --max_epochs
        ["-max_epochs", "5"],  # and this too
        ["--players#generator#optimizer#lr", "0.2"],
        ["--players::generator::losses::0::weight", "0"],
        ["--graph#steps#lr_fake", "['lr_decoder', 'hr']"],
        ["--train#trainer#max_epochs=2"],
        ["--run_id", "run", "--meta-file", "metadata.json", "--logging_file=l.conf", "--tracking", "mlflow"],
    ],
)
def test_a_key_of_the_configs_passes(files, words):
    assert check([*RUN, "--config_file", files[0], *words]) is None  # and raises nothing


@pytest.mark.parametrize(
    "written",
    [
        lambda files: ["--config_file", str(files)],
        lambda files: [f"--config_file={files}"],
        lambda files: ["--config-file", json.dumps(files)],
        lambda files: ["--config_file", f"('{files[0]}','{files[1]}')"],
        lambda files: ["--config_file", f"[{','.join(files)}]"],
    ],
)
def test_keys_of_every_file_of_a_list_are_known(files, written):
    words = ["--cohort_size", "4", "--graph#steps#hr_self", "[]", "--max_epochs", "1"]
    check([*RUN, *written(files), *words])
    with pytest.raises(ValueError, match=r"--cohort_siez: .*cohort_size"):
        check([*RUN, *written(files), "--cohort_siez", "4"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max_epoch", "5"], r"--max_epoch: .*did you mean max_epochs\?"),
        (["--max_epoch=5"], r"--max_epoch: .*did you mean max_epochs\?"),
        (["-max_epoch", "5"], r"--max_epoch: .*did you mean max_epochs\?"),
        (["--players#generator#optimizer#lrr", "5"], r"--players#generator#optimizer#lrr: .*did you mean lr\?"),
        (["--players#generater#optimizer#lr", "5"], r"did you mean generator\?"),
        (["--playes::generator::optimizer::lr", "5"], r"did you mean players\?"),
        (["--graph#steps#lr_fak", "[]"], r"did you mean lr_fake\?"),
        (["--cohort_size", "5"], r"--cohort_size: the configs have no such key"),
        (["--train#trainer#max_epochs#x", "1"], r"max_epochs is the same as max_epochs \(@max_epochs\); set it there"),
        (["--players#generator#losses#7", "1"], r"no such key\."),
    ],
)
def test_a_misspelt_key_is_refused_with_what_resembles_it(files, words, said):
    with pytest.raises(ValueError, match=said):
        check([*RUN, "--config_file", files[0], *words])


def test_all_misspelt_keys_are_listed_at_once(files):
    with pytest.raises(ValueError) as error:
        check([*RUN, "--config_file", files[0], "--max_epoch", "1", "--dataset_dir", "d", "--learning_rat", "2"])
    assert "max_epochs?" in str(error.value) and "learning_rate?" in str(error.value)
    assert "dataset_dir" not in str(error.value)


def test_an_args_file_is_read_and_the_command_line_goes_before_it(files, tmp_path):
    args = tmp_path / "args.json"
    args.write_text(json.dumps({"config_file": files, "cohort_size": 2}))
    check([*RUN, "--args_file", str(args), "--max_epochs", "1"])
    with pytest.raises(ValueError, match=r"--cohort_size: "):
        check([*RUN, "--args_file", str(args), "--config_file", files[0]])
    args.write_text(json.dumps({"config_file": files, "cohrt_size": 2}))
    with pytest.raises(ValueError, match=r"--cohrt_size: .*cohort_size\?"):
        check([*RUN, f"--args_file={args}"])


@pytest.mark.parametrize(
    "argv",
    [
        ["pytest", "--max_epoch", "1"],
        ["/usr/bin/monailabel", "run", "--conf", "x"],
        ["/site-packages/monai/bundle/__main__.py", "ckpt_export", "--max_epoch", "1"],
    ],
)
def test_other_programs_are_left_alone(argv):
    before = sys.excepthook
    check(argv)
    assert sys.excepthook is before


def test_an_error_ends_with_its_first_cause(files, capsys):
    check([*RUN, "--config_file", files[0]])
    assert sys.excepthook is command_line._explain
    try:
        try:
            raise FileNotFoundError("dataset_dir 'data' is not there")
        except FileNotFoundError as cause:
            raise RuntimeError("Failed to instantiate") from cause
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.rstrip().endswith("\nerror: dataset_dir 'data' is not there") and "Traceback" in said


def test_a_switch_is_true_or_false():
    assert [is_true(v) for v in (True, "true", "True", False, "false", "FALSE")] == [True] * 3 + [False] * 3
    for wrong in ("yes", 1, "", None):
        with pytest.raises(ValueError, match="true or false"):
            is_true(wrong)


def test_whole_numbers():
    """A scale that is none is refused by name."""
    check_whole(scale=2, cascade=3)
    for wrong in (2.5, 0, True, "2"):
        with pytest.raises(ValueError, match=f"scale is {wrong!r}, expected a whole number.*--scale 2"):
            check_whole(scale=wrong)


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        (
            {"players#generator#losses#image/l11": None},
            r"overlay.json: players#generator#losses#image/l11: .* has no such",
        ),
        ({"train#trainer#amp": True}, r"overlay.json: train#trainer#amp: train#trainer is the block .*; set --amp"),
        ({"+train#trainer#amo": {}}, r"overlay.json: train#trainer#amo: .* no such key; did you mean amp\?"),
    ],
)
def test_what_an_overlay_may_not_do(tmp_path, overlay, said):
    """Leave out a row that is not there, or reach into a block; a row that is there it may leave out."""
    base, over = tmp_path / "train.json", tmp_path / "overlay.json"
    block = {"_target_": "%common/configs/training.json::trainer"}
    rows = {"image/l1": [1.0, "@l1", "sr", "hr"]}
    base.write_text(json.dumps({"train": {"trainer": block}, "players": {"generator": {"losses": rows}}}))
    line = [*RUN, "--config_file", str([str(base), str(over)])]
    over.write_text(json.dumps(overlay))
    with pytest.raises(ValueError, match=said):
        check(line)
    over.write_text(json.dumps({"players#generator#losses#image/l1": None}))
    check(line)
    over.write_text(json.dumps({"players#generator#losses#block": rows["image/l1"]}))  # a row of its own
    check(line)
