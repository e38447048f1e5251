"""``python -m common describe``."""

import pytest
import torch

from common.commands.describe import describe
from tests.bundles import runs


def test_shipped_weights(capsys):
    describe(str(runs.ROOT / "bundles" / "udean" / "models" / "model.pt"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"network SlabSuperResolver", "settings scale [2, 2, 2]", "defaults projections 8"} < set(lines)
    assert lines[-1].startswith("sha256 ")


def test_what_says_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: there is no such file"):
        describe(str(tmp_path / "none.pt"))
    torch.save({}, tmp_path / "older.pt")
    with pytest.raises(ValueError, match=r"older\.pt: expected weights that say what they are"):
        describe(str(tmp_path / "older.pt"))
