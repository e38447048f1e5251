import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from setuptools import Distribution, find_packages
from setuptools.compat.py310 import tomllib
from setuptools.config.pyprojecttoml import apply_configuration

from common.program.export.modules import rename_package
from common.version import __version__

from .bundles.runs import save

ROOT = Path(__file__).parents[1]


def test_pip_installs_all_code_and_what_stands_beside_it():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    parts = find_packages(ROOT, include=["common", "common.*"], exclude=["common.lab.queue"])  # it needs the repository
    assert sorted(tools["packages"]) == sorted(["mri_sr_bundles.bundles", *(f"mri_sr_bundles.{p}" for p in parts)])
    installed = set()
    for name in tools["packages"]:
        folder = ROOT / name.removeprefix("mri_sr_bundles.").replace(".", "/")
        installed.update(*(folder.glob(pattern) for pattern in tools["package-data"].get(name, [])))
    beside = {p for p in (ROOT / "common").rglob("*") if p.is_file() and p.suffix in (".json", ".html", ".conf")}
    others = {p for place in ("program/apps", "lab/queue") for p in (ROOT / "common" / place).rglob("*")}
    assert beside <= installed | others, beside - installed
    assert {
        file for name in ("configs/*", "models/*.pt", "models/*.json") for file in ROOT.glob(f"bundles/*/{name}")
    } <= installed


def test_an_installed_bundle_runs_in_an_empty_folder(tmp_path, monkeypatch):
    """Its configs name what is installed, and find the shipped weights; MONAI alone runs them."""
    monkeypatch.chdir(ROOT)
    distribution = apply_configuration(Distribution({"script_name": "setup.py"}), "pyproject.toml")
    distribution.include_package_data = False  # else the repository gets a folder of metadata
    build = distribution.get_command_obj("build_py")
    build.build_lib = str(tmp_path / "site")
    build.ensure_finalized()
    for _ in range(2):  # also where an earlier build is there
        build.run()
    sources = [*ROOT.glob("bundles/*/configs/*.json"), *ROOT.glob("bundles/*/models/*.json")]
    for source in sources:
        installed = json.loads((tmp_path / "site/mri_sr_bundles" / source.relative_to(ROOT)).read_text())
        text = rename_package(source.read_text(), "mri_sr_bundles.common")
        assert {**installed, "bundle_root": None} == {**json.loads(text), "bundle_root": None}, source
    (empty := tmp_path / "empty").mkdir()
    scan = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((20, 20, 20)), np.diag([2.5, 2.5, 2.5, 1]))
    options = {"cwd": empty, "env": {**os.environ, "PYTHONPATH": str(tmp_path / "site")}, "check": True, "text": True}
    mri_sr = "from mri_sr_bundles.common.__main__ import run_mri_sr; run_mri_sr()"
    found = subprocess.run(
        [sys.executable, "-c", mri_sr, "bundle", "udean_window"], stdout=subprocess.PIPE, **options
    ).stdout
    config = ["--config_file", f"{found.strip()}/configs/inference.json"]
    words = [*config, "--dataset_dir", str(scan), "--output_dir", "sr"]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", *words], **options)
    assert nib.load(empty / "sr" / "scan_sr.nii.gz").shape == (40, 40, 40)
    build.editable_mode = True  # where the configs are the repository's, and name common
    build.run()
    assert "common" in distribution.packages


def test_one_version():
    cited = (ROOT / ".github" / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in cited
    assert f"\n## {__version__}\n" in (ROOT / "common" / "docs" / "changelog.md").read_text()
