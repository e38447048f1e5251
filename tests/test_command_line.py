"""What the command line of ``python -m monai.bundle run`` may hold, and what is said of the rest."""

import json
import sys

import pytest
import torch

from common.command_line import check, check_device, check_whole, is_true

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


def _raise_wrapped(cause):
    """As MONAI does; what the excepthook makes of it."""
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError(
                "Failed to instantiate component 'torch.optim.Adam' with keywords: lr\n set ..."
            ) from error
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)


def test_an_error_ends_with_its_first_cause(files, tmp_path, monkeypatch, capsys):
    """In one line; of others' errors it says where in the config, and where the traceback is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    check([*RUN, "--config_file", files[0]])
    _raise_wrapped(ValueError("Invalid learning rate: -1"))
    (log,) = tmp_path.glob("*.log")
    said = capsys.readouterr().err
    assert said == (
        f"\nerror: Invalid learning rate: -1 (in Adam)\nThe traceback is in {log}; --traceback true prints it.\n"
    )
    assert "Traceback" in log.read_text() and "Failed to instantiate" in log.read_text()

    try:
        check([*RUN, "--config_file", files[0], "--max_epoch", "1"])
    except ValueError as error:  # the package's own
        sys.excepthook(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said == "\nerror: --max_epoch: the configs have no such key; did you mean max_epochs?\n"

    for words in (["--traceback", "true"], ["--traceback"], ["--traceback=true"]):
        check([*RUN, "--config_file", files[0], *words])
        _raise_wrapped(KeyError("x"))
        said = capsys.readouterr().err
        assert "Traceback" in said and said.endswith("\nerror: KeyError: 'x' (in Adam)\n")
    with pytest.raises(ValueError, match="--traceback is 'maybe', expected true or false"):
        check([*RUN, "--config_file", files[0], "--traceback", "maybe"])
    assert list(tmp_path.glob("*.log")) == [log]


def test_an_interrupted_run_says_how_to_go_on(files, tmp_path, capsys):
    for key, said in (("resume", "--resume true goes on from the last"), ("skip_existing", "--skip_existing true")):
        config = tmp_path / f"{key}.json"
        config.write_text(json.dumps({key: False}))
        check([*RUN, "--config_file", str(config)])
        with pytest.raises(SystemExit) as stop:
            sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert stop.value.code == 130
        err = capsys.readouterr().err
        assert err.startswith("\ninterrupted; ") and said in err and err.count("\n") == 2
    check([*RUN, "--config_file", files[0]])
    with pytest.raises(SystemExit):
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "\ninterrupted.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "2"], r"--scale is 2, expected a list, as in --scale \'\[2, 2, 2\]\'"),
        (["--scale"], "--scale is empty, expected a list"),
        (["--axes", "2"], r"--axes is 2, expected a list, as in --axes '\$\[0, 1\] if @any else \[2\]'"),
        (["--patch=16"], r"--patch is 16, expected a list"),
        (["--amp", "maybe"], "--amp is 'maybe', expected true or false"),
        (["--seed", "x"], "--seed is 'x', expected a number such as 0"),
        (["--range", "None"], r"--range is None, but MONAI passes over None; for none give --range '\$None'"),
        (["--seed", "null"], r"--seed is null, .*'\$None'"),
        (["--scale", "[2,2,1]", "--axes", "[2]", "--amp", "True", "--seed", "$1 + 1", "--range", "$None"], None),
        (["--scale", "@axes", "--amp", "--seed", "1e3", "--empty", "None", "--batch", "4", "--stages", "2"], None),
        (["--seed", "[1,2]", "--name", "3", "--seed=-2"], None),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, words, said):
    """By what the configs have there."""
    config = {
        "scale": [2, 2, 2],
        "axes": "$[0, 1] if @any else [2]",
        "patch": "$[64, @x#y::z]",
        "amp": False,
        "seed": 0,
    }
    config |= {"range": {"noise": [0, 1]}, "empty": None, "batch": "$[8, 4][@stage - 1]", "stages": [1, 2], "name": "a"}
    (tmp_path / "train.json").write_text(json.dumps(config))
    line = [*RUN, "--config_file", str(tmp_path / "train.json"), *words]
    if said is None:
        check(line)
    else:
        with pytest.raises(ValueError, match=said):
            check(line)


def test_a_gpu_that_is_not_there():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"device is cuda:{count}, but torch finds .*cpu"):
        check_device(f"cuda:{count}")
    check_device("cpu")
    check_device(torch.device("cpu"))


def test_a_switch_is_true_or_false():
    assert [is_true(v) for v in (True, "true", "True", False, "false", "FALSE")] == [True] * 3 + [False] * 3
    for wrong in ("yes", 1, "", None):
        with pytest.raises(ValueError, match=f"amp is {wrong!r}, expected true or false"):
            is_true(wrong, "amp")


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
