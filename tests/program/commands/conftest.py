"""What the tests of commands that run bundles share."""

import contextlib
import json
import runpy
import shutil
import sys
import warnings

import pytest

from common.lab.tables import execution
from tests.bundles.runs import ROOT, TINY, undrawn


@pytest.fixture
def commands(monkeypatch):
    """The commands as they were run: by the real command line, but in this process, which has imported it all."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    made = []

    def run(command, log):
        assert command[:4] == [sys.executable, "-m", "monai.bundle", "run"]
        made.append(command[4:])
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *command[3:]])
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
            except Exception:
                sys.excepthook(*sys.exc_info())
                log.flush()
                return 1
        return 0

    monkeypatch.setattr(execution, "run_program", run)
    with undrawn():
        yield made


@pytest.fixture
def tiny_bundles(commands, tmp_path, monkeypatch):
    """The commands where the bundles have an overlay of the tests' sizes, tiny.json."""
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles", ignore=shutil.ignore_patterns("docs", "models"))
    for name, tiny in TINY.items():
        (tmp_path / "bundles" / name / "configs" / "tiny.json").write_text(
            json.dumps({**tiny.network, **tiny.training})
        )
    monkeypatch.chdir(tmp_path)
    return commands
