"""``python -m common remember``."""

import pytest
import torch

from common.about import remembered
from common.commands.remember import remember
from common.handlers import LastModel


def test_values_are_kept_in_the_file(tmp_path, capsys):
    weights = tmp_path / "models" / "model.pt"
    LastModel(torch.nn.Linear(1, 1), [weights], {"scale": [2, 2, 2]}).save()
    before = torch.load(weights, weights_only=True)
    remember(str(weights), highest_disagreement=0.05)
    remember(str(weights), uncertainty_scale=[1.5, 0.01], highest_disagreement=0.06)
    assert remembered(weights, uncertainty_scale=None) == [1.5, 0.01] and remembered(weights, scale=0) == [2, 2, 2]
    assert remembered(weights, highest_disagreement=None) == 0.06
    after = torch.load(weights, weights_only=True)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert "model.pt remembers uncertainty_scale [1.5, 0.01], highest_disagreement 0.06" in capsys.readouterr().out


def test_what_cannot_be_remembered(tmp_path):
    weights = tmp_path / "models" / "model.pt"
    LastModel(torch.nn.Linear(1, 1), [weights], {"scale": [2, 2, 2]}).save()
    torch.save({}, tmp_path / "other.pt")
    for path, values, message in (
        (weights, {}, "no value is given"),
        (weights, {"scale": [2, 2, 1]}, "scale is as in the training"),
        (tmp_path / "other.pt", {"a": 1}, "do not say what they are"),
    ):
        with pytest.raises(ValueError, match=message):
            remember(str(path), **values)
    with pytest.raises(FileNotFoundError):
        remember(str(tmp_path / "none.pt"), a=1)
