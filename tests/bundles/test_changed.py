"""What a user of MONAI changes in a training, by the real command line: overrides, and overlays of a few lines."""

import json
from pathlib import Path

import pytest
import torch

from . import runs

HANDLER = {
    "_target_": "monai.handlers.StatsHandler",
    "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
}
SGD = {"_target_": "torch.optim.SGD", "_mode_": "callable", "lr": 0.001, "momentum": 0.9, "nesterov": True}


def train(bundle, cohort, folder, overlay=None, **override):
    """Train with an overlay; gives the history."""
    names = ["train"]
    if overlay is not None:
        folder.mkdir()
        path = folder / "own.json"
        path.write_text(json.dumps(overlay))
        names.append(str(path.with_suffix("")))
    done = runs.command(bundle, names, folder, dataset_dir=cohort, **override)
    assert done.returncode == 0, done.stderr
    return done, runs.history(folder)


# The player of the network that is applied, a row of its losses, a setting of its optimizer, and another degradation.
METHODS = {
    "srcnn": ("srcnn", "image/l2", {"_target_": "common.degradations.KSpaceTruncation", "factors": "@scale"}),
    "udean": (
        "generator",
        "image_cycle/ssim",
        {"_target_": "common.degradations.GaussianProfile", "factors": "@scale"},
    ),
}


@pytest.mark.parametrize("bundle", METHODS, indirect=True, scope="session")
def test_a_training_takes_what_a_user_changes(bundle, tiny, cohort, tmp_path):
    """Overlay: another optimizer, one of MONAI's handlers, a row out and one in, another degradation. Overrides: bf16,
    validation every second epoch, a scheduler's and a player's argument that the config does not name."""
    player, row, degradation = METHODS[bundle]
    losses = f"players#{player}#losses"
    kept = json.loads(Path(*runs.configs(bundle, "train")).read_text())["players"][player]["losses"][row]
    overlay = {
        "imports": ["$import monai"],
        "degradation": degradation,
        f"players#{player}#optimizer": SGD,
        f"{losses}#{row}": None,
        f"{losses}#image/huber": [0.5, {"_target_": "torch.nn.HuberLoss"}, *kept[2:]],
        "+train#handlers": [HANDLER],
    }
    override = {f"players#{player}#optimizer#weight_decay": 0.01, f"players#{player}#clip_norm": 1.0}
    precision = {"train#trainer#amp": True, "val_interval": 2, **tiny.lasting(4, 2)}
    done, history = train(bundle, cohort, tmp_path / "run", overlay, **override, **precision)
    losses = {key.removeprefix(f"{player}/") for line in history for key in line if key.startswith(f"{player}/")}
    assert "image/huber" in losses and row not in losses
    assert [line["epoch"] for line in history if "validation/psnr" in line] == [2, 4]
    said = [line for line in (done.stdout + done.stderr).splitlines() if "-- Loss: " in line]
    assert len(said) >= 8, done.stdout[-3000:]
    state = torch.load(tmp_path / "run" / "models" / "training_state.pt", weights_only=True)
    (group,) = state["players"][player]["optimizer"]["param_groups"]
    assert group["nesterov"] and group["weight_decay"] == 0.01
    # The overlay of the weights has them evaluated on one's own list, without a size being given.
    path = str(tmp_path / "run" / "own")
    evaluated = runs.command(bundle, ["train", path, "evaluate"], tmp_path / "run", dataset_dir=cohort)
    assert evaluated.returncode == 0, evaluated.stderr
    assert {method for method, _ in runs.table(tmp_path / "run")} > {"cubic"}
