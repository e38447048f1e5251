"""``python -m common describe``."""

import torch

from common.commands.describe import describe
from tests.bundles import runs
from tests.refused import refused


def test_shipped_weights_are_described_and_others_refused(tmp_path, capsys):
    describe(str(runs.ROOT / "bundles" / "udean" / "models" / "model.pt"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"network SlabSuperResolver", "settings scale [2, 2, 2]", "defaults projections 8"} < set(lines)
    assert lines[-1].startswith("sha256 ")
    torch.save({}, tmp_path / "older.pt")
    refused(lambda: describe(str(tmp_path / "none.pt")), FileNotFoundError, "none.pt")
    refused(lambda: describe(str(tmp_path / "older.pt")), ValueError, "older.pt", "say what they are")
