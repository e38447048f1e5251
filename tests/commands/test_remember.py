"""``python -m common remember``."""

from functools import partial

import torch

from common.about import remembered
from common.commands.remember import remember
from common.handlers import LastModel
from tests.refused import refused


def test_values_are_kept_in_the_file_or_refused(tmp_path, capsys):
    weights = tmp_path / "model.pt"
    LastModel(torch.nn.Linear(1, 1), [weights], {"scale": [2, 2, 2]}).save()
    before = torch.load(weights, weights_only=True)
    remember(str(weights), highest_disagreement=0.05)
    remember(str(weights), uncertainty_scale=[1.5, 0.01], highest_disagreement=0.06)
    assert remembered(weights, uncertainty_scale=None) == [1.5, 0.01] and remembered(weights, scale=0) == [2, 2, 2]
    assert remembered(weights, highest_disagreement=None) == 0.06
    after = torch.load(weights, weights_only=True)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert "model.pt remembers uncertainty_scale [1.5, 0.01], highest_disagreement 0.06" in capsys.readouterr().out
    torch.save({}, tmp_path / "other.pt")
    for name, values, kind, words in (
        ("model.pt", {}, ValueError, ["no value"]),
        ("model.pt", {"scale": [2, 2, 1]}, ValueError, ["scale", "train anew"]),
        ("other.pt", {"a": 1}, ValueError, ["other.pt", "do not say what they are"]),
        ("none.pt", {"a": 1}, FileNotFoundError, ["none.pt"]),
    ):
        refused(partial(remember, str(tmp_path / name), **values), kind, *words)
