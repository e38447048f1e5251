"""What a user of MONAI changes in a training, by the real command line: overrides, and overlays of a few lines."""

import json
import random
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from ..refused import refused
from . import runs

HANDLER = {
    "_target_": "monai.handlers.StatsHandler",
    "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
}
SGD = {"_target_": "torch.optim.SGD", "_mode_": "callable", "lr": 0.001, "momentum": 0.9, "nesterov": True}


@runs.of("udean")
def test_a_training_takes_what_a_user_changes(bundle, tiny, cohort, tmp_path):
    """Overlay: another optimizer, one of MONAI's handlers, a row out and one in, another degradation. Overrides: bf16,
    validation every second epoch, a scheduler's and a player's argument that the config does not name."""
    player, row = "generator", "image_cycle/ssim"
    losses = f"players#{player}#losses"
    kept = json.loads(Path(*runs.configs(bundle, "train")).read_text())["players"][player]["losses"][row]
    overlay = {
        "imports": ["$import monai"],
        "degradation": {"_target_": "common.degradations.GaussianProfile", "factors": "@scale"},
        f"players#{player}#optimizer": SGD,
        f"{losses}#{row}": None,
        f"{losses}#image/huber": [0.5, {"_target_": "torch.nn.HuberLoss"}, *kept[2:]],
        "+train#handlers": [HANDLER],
    }
    override = {f"players#{player}#optimizer#weight_decay": 0.01, f"players#{player}#clip_norm": 1.0}
    precision = {"train#trainer#amp": True, "val_interval": 2, **tiny.lasting(4, 2)}
    (tmp_path / "own.json").write_text(json.dumps(overlay))
    names = ["train", str(tmp_path / "own")]
    done = runs.command(bundle, names, tmp_path / "run", dataset_dir=cohort, **override, **precision)
    assert done.returncode == 0, done.stderr
    history = runs.history(tmp_path / "run")
    losses = {key.removeprefix(f"{player}/") for line in history for key in line if key.startswith(f"{player}/")}
    assert "image/huber" in losses and row not in losses
    assert [line["epoch"] for line in history if "validation/psnr" in line] == [2, 4]
    said = [line for line in (done.stdout + done.stderr).splitlines() if "-- Loss: " in line]
    assert len(said) >= 8, done.stdout[-3000:]
    state = torch.load(tmp_path / "run" / "models" / "training_state.pt", weights_only=True)
    (group,) = state["players"][player]["optimizer"]["param_groups"]
    assert group["nesterov"] and group["weight_decay"] == 0.01
    # The overlay of the weights has them evaluated on one's own list, without a size being given.
    done = runs.command(bundle, [*names, "evaluate"], tmp_path / "run", dataset_dir=cohort)
    assert done.returncode == 0, done.stderr
    assert {method for method, _ in runs.table(tmp_path / "run")} > {"cubic"}


@runs.of("srcnn")
def test_what_a_training_changed_of_its_task_is_evaluated(bundle, tiny, cohort, tmp_path, monkeypatch, capsys):
    """Noise, a shift and a network of one's own travel with the weights; the table names them, and an override."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n\ndef make(width):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1))\n"
    )
    noise = {"_target_": "common.degradations.RicianNoise", "sigma": "@sigma", "seed": 0}
    overlay = {
        "degradation#offset": [1.0, 1.0, 0.0],
        "sigma": 0.05,
        "scan_degradation": {
            "_target_": "common.degradations.ComposeDegradations",
            "degradations": ["@degradation", noise],
        },
        "network_def#body": {"_target_": "own_networks.make", "width": 4},
    }
    (tmp_path / "own.json").write_text(json.dumps(overlay))
    runs.run(bundle, ["train", str(tmp_path / "own")], tmp_path, dataset_dir=str(cohort))
    validated = max(line["validation/psnr"] for line in runs.history(tmp_path) if "validation/psnr" in line)
    weights = str(tmp_path / "models" / "model")
    names, options = ["train", "evaluate", weights], {"dataset_dir": str(cohort), "overwrite": True}
    for override in ({}, {"sigma": 0.0}):
        capsys.readouterr()
        runs.run(bundle, names, tmp_path, **options, **override, **{"evaluate#evaluator#data#name": "validation"})
        said = capsys.readouterr().out
        table = json.loads((tmp_path / "out" / "table.json").read_text())
        assert "\n".join(table["task"]) in said
        for text in ("first LR voxel: (1, 1, 0)", "own_networks.make(width=4)", f"sigma={override.get('sigma', 0.05)}"):
            assert text in said, text
        is_same = abs(table["summary"]["make"]["psnr"]["mean"] - validated) < 0.01
        assert is_same == ("trained with scan_degradation" not in said) == (not override)
    assert runs.content(bundle, "network_def", "inference", weights).body[0].out_channels == 4


@pytest.mark.slow
@runs.of("udean_window", "vdsr", "cut")
def test_what_differs_in_a_resumed_training_is_used_or_refused_by_name(bundle, tiny, cohort, trained):
    """Keys of a drawn player and of the networks, and the fold."""
    config = runs.content(bundle, None, "train").get()
    name = random.choice([*config["players"]])
    row = random.choice([*config["players"][name]["losses"]])
    optimizer = config["players"][name]["optimizer"]
    adam = optimizer[1:] if isinstance(optimizer, str) else f"players#{name}#optimizer"

    def restore(**override):
        """What the player of a restored training has."""
        options = runs.overrides(bundle, ["train"], trained, dataset_dir=str(cohort), **override)
        trainer = runs.content(bundle, "train#trainer", "train", **options)
        trainer.fire_event(Events.STARTED)
        player = trainer.players[name]
        (group,) = player.optimizer.param_groups
        rate = group.get("initial_lr", group["lr"])
        return (
            rate,
            group["weight_decay"],
            player.clip_norm,
            {k: weight for k, (weight, *_) in player.losses.terms.items()},
        )

    drawn = {f"{adam}#lr": 1e-3, f"{adam}#weight_decay": 0.1}
    drawn |= {f"players#{name}#clip_norm": 2, f"players#{name}#losses#{row}#0": 2}
    for key, most in drawn.items():
        used = {key: random.uniform(0.1, 1) * most}
        expected = restore(ckpt_dir=str(trained / "new"), output_dir=str(trained / "new"), **used)
        assert restore(resume=True) != restore(resume=True, **used) == expected, key
    size, value = next(iter(tiny.network.items()))
    other = {size: 2 * value, f"{adam}#amsgrad": True} | ({"fold": 1} if "fold" in config else {})
    for key, value in other.items():
        words = trained / "models" / "training_state.pt", key.rpartition("#")[2]
        refused(lambda key=key, value=value: restore(resume=True, **{key: value}), ValueError, *words)
