"""`python -m common export`: what leaves the repository works without it, and what would not work does not leave."""

import json
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from common.program.commands import export as export_bundle
from common.program.commands.export import export
from common.program.export.modules import list_strings
from common.weights.loading import read_overlay

from .. import forked
from . import runs
from .conftest import version


def mostly_slow(names):
    """For tests of these bundles: in the first step of one without a guide, and of one with a guide and a cascade."""
    known = [pytest.param(name, marks=() if name in ("srcnn", "guided_rdn") else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("bundle", known, indirect=True, scope="session")


@mostly_slow(runs.TINY)
def test_contents(bundle, tiny, exported):
    """The folder holds what it must, and nothing of the repository's name."""
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    shared = {"LICENSE", "configs/logging.conf"}
    assert {"docs/README.md", "docs/data_license.txt", *shared} <= files
    assert not [path for path in exported.rglob("*") if path.is_symlink()]
    for config in exported.glob("configs/*.json"):
        strings = list_strings(json.loads(config.read_text()))
        assert not [text for text in strings if re.match("%.*[.]json", text)], config
    shipped = {path.name for path in (runs.ROOT / "bundles" / bundle / "models").glob("model*")}
    assert {path.name for path in (exported / "models").iterdir()} == {"model.json", "model.pt"} | shipped
    overlay = json.loads((exported / "models" / "model.json").read_text())
    inference = json.loads((exported / "configs" / "inference.json").read_text())
    assert tiny.network.keys() <= overlay.keys() and overlay["digest"] == inference["digest"]
    assert all(inference[key] == overlay[key] for key in overlay.keys() & inference)
    package = f"{bundle}_v{version(bundle).replace('.', '_')}"
    assert not {f for f in files if f.endswith(".py") and not f.startswith(f"{package}/")}
    for file in files:
        if file.endswith((".json", ".md", ".py")):
            text = (exported / file).read_text()
            assert not re.search(r"\bcommon\.[a-z]+\.|\bcommon/[a-z]+[./]|python -m common", text), file
            assert file.endswith(".py") or not re.search(rf"bundles/{bundle}\b", text), file
    carried, every = (
        {path.name for path in (root / "networks").glob("*.py")} for root in (exported / package, runs.ROOT / "common")
    )
    network = runs.content(bundle, "network_def", "inference", **tiny.network)
    assert f"{type(network).__module__.rpartition('.')[2]}.py" in carried < every
    meta = json.loads((exported / "configs" / "metadata.json").read_text())
    told = {"eval_metrics", "data_source"}  # of the weights that ship, and of no others
    assert meta.keys() & told == (told if shipped else set())
    for page in exported.glob("docs/*.md"):
        links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
        assert all((page.parent / link).resolve().is_relative_to(exported) for link in links), page
        assert all((page.parent / link).exists() for link in links), page

    with zipfile.ZipFile(exported.parents[1] / f"{bundle}_v{version(bundle)}.zip") as archive:
        assert not [n for n in archive.namelist() if not n.startswith(f"{bundle}/")]


@pytest.mark.slow
@runs.of("srcnn")
def test_the_same_weights_give_the_same_bytes(bundle, exported, tmp_path):
    export(str(runs.ROOT / "bundles" / bundle), str(tmp_path), str(exported / "models" / "model.pt"))
    name = f"{bundle}_v{version(bundle)}.zip"
    assert (exported.parents[1] / name).read_bytes() == (tmp_path / name).read_bytes()
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.iterdir())) == 4


ONE = "udean"  # for those tests that are about exporting and not about bundles


@pytest.fixture
def copied(tmp_path) -> Path:
    folder = shutil.copytree(runs.ROOT / "bundles" / ONE, tmp_path / ONE)
    for file in (folder / "models").iterdir():
        file.unlink()
    runs.save_weights(ONE, folder / "models" / "model.pt")
    return folder


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.slow
def test_two_versions_in_one_process(copied, tmp_path, monkeypatch, forget):
    """Two versions whose code differs are each run by their own code in one process, whichever came first."""
    folders = []
    for number, method in (("0.2.0", "first"), ("0.3.0", "second")):
        change(copied / "configs" / "metadata.json", version=number, changelog={number: "changed"})
        export(str(copied), str(tmp_path / number))
        folders.append(tmp_path / number / ONE)
        slab = folders[-1] / f"{ONE}_v{number.replace('.', '_')}" / "networks" / "slab.py"
        slab.write_text(slab.read_text() + f"\n\nSlabSuperResolver.method = '{method}'\n")
        monkeypatch.syspath_prepend(str(folders[-1]))
    for method, folder in [*zip(("first", "second"), folders, strict=True)] * 2:
        parser = ConfigParser()
        parser.read_config(str(folder / "configs" / "inference.json"))
        network = parser.get_parsed_content("network_def")
        assert network.method == method
        modules = {type(module).__module__ for module in (network, parser.get_parsed_content("inferer"))}
        assert all(Path(sys.modules[name].__file__).is_relative_to(folder) for name in modules)


def spoil_text(name: str, old: str, new: str):

    def spoil(folder: Path) -> None:
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return spoil


def metadata(**values: object):
    return lambda folder: change(folder / "configs" / "metadata.json", **values)


def listed(entry: str):
    return lambda folder: (folder / "large_files.yml").write_text(f"large_files:\n- {entry}\n")


REFUSED = {
    "no weights": (lambda f: (f / "models" / "model.pt").unlink(), r"model\.pt"),
    "no overlay": (lambda f: (f / "models" / "model.json").unlink(), r"model\.json"),
    "other weights": (lambda f: torch.save({"a": torch.zeros(1)}, f / "models" / "model.pt"), "another architecture"),
    "other sizes": (spoil_text("models/model.json", '"features": 8', '"features": 9'), "another architecture"),
    "further weights": (
        lambda f: shutil.copyfile(f / "models" / "model.json", f / "models" / "model_more.json"),
        r"there are no weights at .*models/model_more\.pt",
    ),
    "no logging.conf": (lambda f: (f / "configs" / "logging.conf").unlink(), "logging.conf is missing"),
    "version": (metadata(version="99.0.0"), r"version 99.0.0 is not in changelog \(0"),
    "no JSON": (spoil_text("configs/train.json", '"seed": 0,', '"seed": 0'), r"train.json does not parse: .*line \d+"),
    "unknown reference": (
        spoil_text("configs/evaluate.json", "@evaluate#evaluator", "@evaluate#eva"),
        "@evaluate::eva",
    ),
    "unknown name": (spoil_text("configs/train.json", "SlabEncoder", "SlobEncoder"), r"\.SlobEncoder does not exist"),
    "package not listed": (metadata(required_packages_version={"nibabel": "5.4.2"}), "not list scipy .*py needs it"),
    "no weights and no docs": (
        lambda f: ((f / "models" / "model.pt").unlink(), (f / "docs" / "README.md").unlink()),
        r"model\.pt(.|\n)*README.md is missing",
    ),
    "another shape": (
        spoil_text("configs/metadata.json", '["2*n", "2*n", 6]', '["2*n", "n", 6]'),
        r"metadata.json: .*\[1, 1, 34, 17, 6\].*\[1, 1, 34, 34, 6\]",
    ),
    "large file": (lambda f: (f / "docs" / "film").write_bytes(bytes(25_000_001)), "docs/film has 25.0 MB.*files.yml"),
    "another hash": (listed("{path: docs/README.md, url: 'https://a.org', hash_val: '00'}"), "README.md .*hash_val"),
    "no url": (listed("path: models/model.pt"), "large_files.yml: expected .* path and url"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(copied, tmp_path, case):
    """A bundle that is not fit to leave is refused with the reason, and nothing is left."""
    spoil, message = REFUSED[case]
    spoil(copied)
    with pytest.raises(ValueError, match=rf"cannot be exported:(.|\n)*{message}"):
        export(str(copied), str(tmp_path / "dist"))
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").iterdir())


@pytest.mark.slow
def test_further_weights(copied, tmp_path, monkeypatch):
    """Weights beside model.pt go with the bundle, of any size; but not with those of another training."""
    monkeypatch.setattr(export_bundle, "metadata", lambda name: {"Author": "A. Uthor, B. Uthor"})
    models = copied / "models"
    runs.save_weights(ONE, models / "model_large.pt", features=16)
    digest = read_overlay(models / "model_large.pt")["digest"]
    change(models / "model_large.json", digest="0" * 64)
    with pytest.raises(ValueError, match=r"model_large\.pt: these are not the weights that model_large\.json"):
        export(str(copied), str(tmp_path / "dist"))
    change(models / "model_large.json", digest=digest, data_consistency_iterations=3)
    export(str(copied), str(tmp_path / "dist"))
    found = tmp_path / "dist" / ONE / "models"
    assert (found / "model_large.pt").read_bytes() == (models / "model_large.pt").read_bytes()
    overlay = read_overlay(found / "model_large.pt")
    assert overlay["checkpoint"] == "$@bundle_root + '/models/model_large.pt'"
    assert overlay["data_consistency_iterations"] == 3
    export(str(copied), str(tmp_path / "mine"), str(models / "model_large.pt"))
    found = tmp_path / "mine" / ONE
    assert json.loads((found / "configs" / "metadata.json").read_text())["authors"] == "A. Uthor, B. Uthor"
    assert not list(found.glob("models/model_*"))
    assert json.loads((found / "configs" / "inference.json").read_text())["data_consistency_iterations"] == 3


@pytest.mark.slow
def test_large_file_that_is_named(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(export_bundle, "LARGE", 200_000)
    (copied / "docs" / "film.bin").write_bytes(bytes(200_001))
    large = ["docs/film.bin", *(f"models/{path.name}" for path in (copied / "models").glob("model_*.pt"))]
    entries = [f"- {{path: {name}, url: 'https://example.org/{name}', hash_val: '', hash_type: ''}}" for name in large]
    (copied / "large_files.yml").write_text("\n".join(["large_files:", *entries, ""]))
    for picture in (copied / "docs").glob("*.png"):
        picture.unlink()
    export(str(copied), str(tmp_path / "dist"))
    assert (tmp_path / "dist" / ONE / "docs" / "film.bin").stat().st_size == 200_001


@runs.of("srcnn")
def test_hugging_face(bundle, exported, tmp_path, monkeypatch):
    """The command for maintainers uploads the folder, with a model card of the page, and tags the version."""
    folder = shutil.copytree(exported, tmp_path / bundle)
    calls = []

    class Api:
        def __init__(self, token=None):
            pass

        def __getattr__(self, name):
            return lambda **given: calls.append((name, given))

    monkeypatch.setattr("monai.bundle.scripts.huggingface_hub", types.SimpleNamespace(HfApi=Api))
    page = (runs.ROOT / ".github" / "CONTRIBUTING.md").read_text()
    code = re.search('^python -c "(.*push_to_hf_hub.*)"$', page, re.MULTILINE)[1]
    monkeypatch.chdir(tmp_path)
    exec(code.replace("udean_window", bundle).replace("VERSION", version(bundle)).replace("'dist'", "'.'"))
    uploaded = {"repo_id": f"USER/{bundle}", "folder_path": f"./{bundle}"}
    assert [name for name, _ in calls] == ["create_repo", "upload_folder", "create_tag"]
    assert calls[1][1] == uploaded and calls[2][1]["tag"] == version(bundle)
    _, matter, page = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(matter) == {"tags": ["monai", "medical"], "library_name": "monai", "license": "apache-2.0"}
    assert page == (folder / "docs" / "README.md").read_text()
    assert all((folder / file).exists() for file in re.findall(r"`((?:docs|configs|models)/[^`]+)`", page))


LONG = r"^(?!.*# type: ignore).{133}"  # what flake8-bugbear refuses
CHECK_WORKFLOW = """
def check_workflow(workflow, check_properties):
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
"""


@mostly_slow(runs.TINY)
def test_unit_test(bundle, exported, tmp_path):
    """In a folder like the zoo's, the unit test trains, evaluates and infers; all code is formatted as there."""
    shutil.copytree(exported, tmp_path / "models" / bundle)
    file = shutil.copy(exported.parents[1] / "ci" / "unit_tests" / f"test_{bundle}.py", tmp_path)
    (tmp_path / "utils.py").write_text(CHECK_WORKFLOW)
    done = forked.command(["unittest", f"test_{bundle}"], tmp_path, tmp_path / "said")
    assert done.returncode == 0 and re.search("^Ran 2 tests(.|\n)*OK$", done.stderr, re.MULTILINE), done.stderr
    style = ["format", "--check", "--config", runs.ROOT / "pyproject.toml", tmp_path / "models", file]
    subprocess.run([sys.executable, "-m", "ruff", *style], check=True)
    assert not [path for path in tmp_path.rglob("*.py") if re.search(LONG, path.read_text(), re.MULTILINE)]
