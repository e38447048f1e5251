"""``python -m common new``: what it writes trains and is measured as it is, and nothing is overwritten."""

import json
import shutil

import pytest

from common.program.commands.new import create_bundle
from tests import forked
from tests.bundles import runs
from tests.refused import refused


@pytest.fixture
def bundles(tmp_path):
    """A folder with a bundle to begin with, in a repository that has what tests know of it."""
    shutil.copytree(runs.ROOT / "bundles" / "srcnn", tmp_path / "bundles" / "srcnn")
    tests = tmp_path / "tests" / "bundles" / "tiny"
    tests.mkdir(parents=True)
    shutil.copyfile(runs.ROOT / "tests" / "bundles" / "tiny" / "srcnn.py", tests / "srcnn.py")
    return tmp_path / "bundles"


def test_a_new_bundle_trains_and_is_measured(bundles, tmp_path):
    create_bundle(str(bundles / "mynet"))
    folder = bundles / "mynet"
    written = {path.name for path in (folder / "configs").iterdir()}
    names = ("train", "inference", "evaluate", "demo", "small", "metadata")
    assert written == {*(f"{name}.json" for name in names), "logging.conf"}
    assert {path.name for path in (folder / "docs").iterdir()} == {"README.md", "results.md", "data_license.txt"}
    meta = json.loads((folder / "configs" / "metadata.json").read_text())
    assert meta["version"] == "0.1.0" and list(meta["changelog"]) == ["0.1.0"]
    assert "--hr" in (folder / "docs" / "README.md").read_text()
    files = [str(folder / "configs" / f"{name}.json") for name in ("train", "evaluate", "demo")]
    words = ["run", "--config_file", str(files), "--output_dir", tmp_path / "out", "--device", "cpu"]
    small = {"_target_": "common.program.cohort.simulate_cohort", "folder": str(tmp_path / "data"), "contrasts": "t1w"}
    small |= {"subjects": 3, "spacing": 4, "datalist": {"hr": "*/*_t1w.nii.gz", "split": [1, 0, 1, 1]}}
    words += [*"--max_epochs 1 --epoch_length 2 --lr_patch 12 --features [8,4]".split(), "--dataset_dir", small]
    done = forked.command(["monai.bundle", *words], runs.ROOT, tmp_path / "said")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "out" / "table.json").read_text())["summary"]) == {"cubic", "mynet"}
    overlay = json.loads((tmp_path / "out" / "models" / "model.json").read_text())
    assert overlay["trained"]["bundle"] == "mynet" and overlay["features"] == [8, 4]


@pytest.mark.parametrize("like", runs.FORMS)
def test_any_bundle_can_be_begun_with(like, tmp_path):
    """It is like what its tests know of the other, and no value of weights that ship is in it."""
    create_bundle(str(tmp_path / "bundles" / "new_one"), str(runs.ROOT / "bundles" / like))
    configs = {path.stem: path.read_text() for path in (tmp_path / "bundles" / "new_one" / "configs").glob("*.json")}
    ours = {name: text for name, text in configs.items() if f"bundles/{like}" in text or f"demo_{like}" in text}
    assert not ours and json.loads(configs["inference"])["digest"] is None
    train = json.loads(configs["train"])
    assert train["method"] == "new_one" and train["bundle_root"].endswith("/new_one")


def test_without_tests(bundles):
    shutil.rmtree(bundles.parent / "tests")
    create_bundle(str(bundles / "mynet"))
    assert (bundles / "mynet" / "configs" / "train.json").is_file()


def test_what_the_tests_know(bundles):
    """What is tested with the other is left to it."""
    create_bundle(str(bundles / "mynet"))
    values = {}
    exec((bundles.parent / "tests" / "bundles" / "tiny" / "mynet.py").read_text(), values)
    known = values["TINY"]
    assert known["like"] == "srcnn" and not known.keys() & {"degradation", "networks"}


@pytest.mark.parametrize(
    ("name", "like", "error", "words"),
    [
        ("srcnn", "srcnn", FileExistsError, ["srcnn"]),
        ("my-net", "srcnn", ValueError, ["--bundle", "my-net", "mynet"]),
        ("2net", "srcnn", ValueError, ["2net"]),
        ("class", "srcnn", ValueError, ["class"]),
        ("mynet", "srcn", FileNotFoundError, ["--template srcn", "there are srcnn"]),
    ],
)
def test_refused(bundles, name, like, error, words):
    before = sorted(bundles.parent.rglob("*"))
    refused(lambda: create_bundle(str(bundles / name), like), error, *words)
    assert sorted(bundles.parent.rglob("*")) == before
