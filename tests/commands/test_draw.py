"""``python -m common draw`` on configs with expressions, overlays and macros, and on the bundles."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from common.commands import draw as module
from common.commands.draw import draw

from ..bundles import runs


@pytest.fixture
def flows(monkeypatch):
    """What was drawn, by title."""
    found = {}
    monkeypatch.setattr(module, "data_flow", lambda path, flows: found.update(flows))
    return found


def _bundle(folder, **configs):
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(config))
    return str(folder)


def _config():
    """Networks that cannot be built, data that is not there."""
    return {
        "imports": ["$from common.command_line import is_true"],
        "guided": True,
        "weight": 0.0,
        "net": "$open('weights.pt')",
        "schedule": {"_target_": "no.such.Schedule"},
        "data": "$open('dataset.json')",
        "graph_1": {
            "_target_": "common.graph.TensorGraph",
            "batch_keys": "$['hr', 'lr'] + ['guide'] * is_true(@guided)",
            "networks": {"net": "@net", "join": {"_target_": "no.such.Join"}},
            "steps": {"image": "$['join', 'lr'] + ['guide'] * is_true(@guided)", "sr": ["net", "image"]},
        },
        "players_1": {
            "net": {
                "_target_": "common.engines.Player",
                "networks": ["net"],
                "optimizer": "@adam",
                "losses": {
                    "l1": [1.0, "@l1", "sr", "hr"],
                    "ssim": ["$2 * @weight", "@ssim", "sr", "hr"],
                    "sparse": ["$@schedule['sparse']", {"_target_": "no.such.Loss"}, "sr"],
                    "size": ["$1 / len(@data)", "@l1", "sr", "lr"],
                },
            }
        },
        "graph_2": {
            "_target_": "common.graph.TensorGraph",
            "networks": {"net": "@net"},
            "steps": {"sr": ["net", "lr"]},
        },
        "kernel_graph": "%{kernel}::graph",
        "kernel_players": {"net": {"networks": ["net"], "losses": {"l1": [1.0, "@l1", "again", "sr"]}}},
        "graph": "$[@graph_1, @graph_2][0]",
        "players": "@players_1",
        "within": {"graph": {"_target_": "common.graph.TensorGraph", "networks": {}, "steps": {}}},
    }


def _written(folder):
    kernel = {
        "_target_": "common.graph.TensorGraph",
        "batch_keys": ["lr"],
        "networks": {"net": "@net"},
        "steps": {"sr": ["net", "lr"], "again": ["net", "sr"]},
    }
    config = _config()
    (folder / "kernel.json").write_text(json.dumps({"graph": kernel}))
    config["kernel_graph"] = f"%{folder}/kernel.json::graph"
    overlay = {
        "guided": "false",
        "weight": 1.0,
        "+players_1#net#losses": {"extra": [0, "@l1", "image"], "l1": None},
        "kernel_players#net": None,
    }
    return _bundle(folder / "bundle", train=config, other=overlay, more={"players_1#net#losses#size": None})


def test_graphs_and_losses_are_read_without_data_or_weights(tmp_path, flows, capsys):
    draw(_written(tmp_path))
    assert list(flows) == ["Stage 1", "Stage 2", "kernel_graph"]
    one, two, kernel = flows.values()
    assert list(one.batch_keys) == ["hr", "lr", "guide"]
    assert one.steps == {"image": ("join", ("lr", "guide")), "sr": ("net", ("image",))}
    (net,) = one.players.values()
    assert net.networks == ["net"] and net.unused == {"ssim"}
    assert net.terms == {"l1": ["sr", "hr"], "ssim": ["sr", "hr"], "sparse": ["sr"], "size": ["sr", "lr"]}
    assert list(two.batch_keys) == ["hr", "lr"] and not two.players
    assert list(kernel.steps) == ["sr", "again"] and list(kernel.players) == ["net"]
    said = capsys.readouterr().out
    assert str(tmp_path / "bundle" / "docs" / "data_flow.png") in said and "graph_1, graph_2, kernel_graph" in said


def test_overlays_are_laid_over_it(tmp_path, flows):
    draw(_written(tmp_path), config=["other", "more"])
    one, _, kernel = flows.values()
    assert list(one.batch_keys) == ["hr", "lr"] and one.steps["image"] == ("join", ("lr",))
    assert list(one.players["net"].terms) == ["ssim", "sparse", "extra"] and one.players["net"].unused == {"extra"}
    assert not kernel.players
    draw(_written(tmp_path), config="more")
    assert list(flows["Stage 1"].players["net"].terms) == ["l1", "ssim", "sparse"]


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.json.*--bundle names the folder"):
        draw(str(tmp_path))
    bundle = _bundle(tmp_path, train={"graph": "$[1]", "within": _config()["within"]})
    with pytest.raises(FileNotFoundError, match=r"paper\.json.*--config names"):
        draw(bundle, config="paper")
    with pytest.raises(ValueError, match=r"train\.json: expected a common\.graph\.TensorGraph at its top"):
        draw(bundle)
    for change, said in (
        ({"graph_1#steps#sr": ["net", "nowhere"]}, r"train\.json, graph_1: .*step 'sr'.*'nowhere'"),
        ({"graph_1#batch_keys": "$open('none.json')"}, r"train\.json, graph_1: .*none\.json"),
        ({"players_1#net#losses": [{"name": "l1"}]}, r"players_1::net::losses: expected .*found a list"),
        ({"players_1#net#losses#l1": [1.0, "@l1"]}, r"losses, l1: expected \[weight, loss, input, \.\.\.\]"),
        ({"players_1#net#losses#l1": [1.0, "@l1", "nowhere"]}, r"player 'net', term 'l1': .*'nowhere'"),
    ):
        config = {key: value for key, value in _config().items() if not key.startswith("kernel")}
        bundle = _bundle(tmp_path, train=config, change=change)
        with pytest.raises(ValueError, match=said):
            draw(bundle, config="change")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        draw(bundle, output=str(tmp_path))
    with pytest.raises(NotADirectoryError, match="is a file"):
        draw(bundle, output=str(tmp_path / "configs" / "train.json" / "flow.png"))
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("name", runs.like_others_slow)
def test_every_bundle_can_be_drawn(name, tmp_path, monkeypatch):
    """Without data, and none are simulated for it."""
    simulated = []
    monkeypatch.setattr("common.commands.simulate.simulate", lambda *args, **kwargs: simulated.append(args))
    config = json.loads(Path(f"bundles/{name}/configs/train.json").read_text())
    draw(_bundle(tmp_path, train=config))
    picture = imread(tmp_path / "docs" / "data_flow.png")
    assert picture.shape[1] >= 1600 and picture.std() > 0.05 and not simulated
