from pathlib import Path

import pytest
from setuptools import find_packages

from common.version import __version__

tomllib = pytest.importorskip("tomllib")  # of Python 3.11 and later
ROOT = Path(__file__).parents[1]


def test_pip_installs_all_code_and_what_stands_beside_it():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    parts = find_packages(ROOT, include=["common", "common.*"])
    assert sorted(tools["packages"]) == sorted(["mri_sr_bundles.bundles", *(f"mri_sr_bundles.{p}" for p in parts)])
    installed = set()
    for name in tools["packages"]:
        folder = ROOT / name.removeprefix("mri_sr_bundles.").replace(".", "/")
        installed.update(*(folder.glob(pattern) for pattern in tools["package-data"].get(name, [])))
    beside = {p for p in (ROOT / "common").rglob("*") if p.is_file() and p.suffix in (".json", ".html", ".conf")}
    assert beside <= installed | set((ROOT / "common" / "apps").rglob("*")), beside - installed
    assert {
        file for name in ("configs/*", "models/*.pt", "models/*.json") for file in ROOT.glob(f"bundles/*/{name}")
    } <= installed


def test_one_version():
    cited = (ROOT / ".github" / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in cited
    assert f"\n## {__version__}\n" in (ROOT / "common" / "docs" / "changelog.md").read_text()
