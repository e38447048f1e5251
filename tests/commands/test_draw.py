"""``python -m common draw`` on configs with expressions, overlays and macros, and on the bundles."""

import json
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from matplotlib.image import imread

from common.commands import draw as module
from common.commands.draw import draw

from ..bundles import runs
from ..refused import refused

GRAPH = {"_target_": "common.graph.TensorGraph", "networks": {"net": "@net"}, "steps": {"sr": ["net", "lr"]}}
PLAYER = {"_target_": "common.engines.Player", "networks": ["net"], "optimizer": "@adam"}
LOSSES = {
    "l1": [1.0, "@l1", "sr", "hr"],
    "ssim": ["$2 * @weight", "@ssim", "sr", "hr"],
    "sparse": ["$@schedule['sparse']", {"_target_": "no.such.Loss"}, "sr"],
    "size": ["$1 / len(@data)", "@l1", "sr", "lr"],
}
# Networks that cannot be built, data that is not there.
CONFIG = {
    "imports": ["$from common.override_checks import is_true"],
    "guided": True,
    "weight": 0.0,
    "net": "$open('weights.pt')",
    "schedule": {"_target_": "no.such.Schedule"},
    "data": "$open('dataset.json')",
    "graph_1": {
        **GRAPH,
        "batch_keys": "$['hr', 'lr'] + ['guide'] * is_true(@guided)",
        "networks": {"net": "@net", "join": {"_target_": "no.such.Join"}},
        "steps": {"image": "$['join', 'lr'] + ['guide'] * is_true(@guided)", "sr": ["net", "image"]},
    },
    "players_1": {"net": {**PLAYER, "losses": LOSSES}},
    "graph_2": GRAPH,
    "graph": "$[@graph_1, @graph_2][0]",
    "players": "@players_1",
    "within": {"graph": {**GRAPH, "networks": {}, "steps": {}}},
}
EXTRA = {"extra": [0, "@l1", "image"], "l1": None}
OTHER = {"guided": "false", "weight": 1.0, "+players_1#net#losses": EXTRA, "kernel_players#net": None}


def _bundle(folder, **configs):
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(config))
    return str(folder)


def test_graphs_and_losses_are_read_without_data_or_weights(tmp_path, monkeypatch, capsys):
    kernel = {**GRAPH, "batch_keys": ["lr"], "steps": {"sr": ["net", "lr"], "again": ["net", "sr"]}}
    (tmp_path / "kernel.json").write_text(json.dumps({"graph": kernel}))
    players = {"net": {"networks": ["net"], "losses": {"l1": [1.0, "@l1", "again", "sr"]}}}
    train = {**CONFIG, "kernel_graph": f"%{tmp_path}/kernel.json::graph", "kernel_players": players}
    bundle = _bundle(tmp_path / "bundle", train=train, other=OTHER, more={"players_1#net#losses#size": None})
    data_flow = Mock()
    monkeypatch.setattr(module, "data_flow", data_flow)

    def drawn(**options):
        draw(bundle, **options)
        return data_flow.call_args.args[1]

    flows = drawn()
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
    # Overlays are laid over it.
    one, _, kernel = drawn(config=["other", "more"]).values()
    assert list(one.batch_keys) == ["hr", "lr"] and one.steps["image"] == ("join", ("lr",))
    assert list(one.players["net"].terms) == ["ssim", "sparse", "extra"] and one.players["net"].unused == {"extra"}
    assert not kernel.players
    assert list(drawn(config="more")["Stage 1"].players["net"].terms) == ["l1", "ssim", "sparse"]


def test_refused(tmp_path):
    bundle = _bundle(tmp_path / "bundle", train=CONFIG)
    bare = _bundle(tmp_path / "bare", train={"graph": "$[1]", "within": CONFIG["within"]})
    for folder, options, kind, words in (
        (str(tmp_path), {}, FileNotFoundError, ["train.json", "--bundle"]),
        (bundle, {"config": "paper"}, FileNotFoundError, ["paper.json", "--config"]),
        (bare, {}, ValueError, ["train.json", "common.graph.TensorGraph at its top"]),
        (bundle, {"output": str(tmp_path)}, IsADirectoryError, ["--output", str(tmp_path)]),
        (bundle, {"output": f"{bundle}/configs/train.json/flow.png"}, NotADirectoryError, ["train.json", "is a file"]),
    ):
        refused(partial(draw, folder, **options), kind, *words)
    for key, value, words in (
        ("graph_1#steps#sr", ["net", "nowhere"], ["train.json, graph_1", "step 'sr'", "'nowhere'"]),
        ("graph_1#batch_keys", "$open('none.json')", ["train.json, graph_1", "none.json"]),
        ("players_1#net#losses", [{"name": "l1"}], ["players_1::net::losses", "found a list"]),
        ("players_1#net#losses#l1", [1.0, "@l1"], ["losses, l1", "[weight, loss, input, ...]"]),
        ("players_1#net#losses#l1", [1.0, "@l1", "nowhere"], ["player 'net', term 'l1'", "'nowhere'"]),
    ):
        _bundle(tmp_path / "bundle", other={key: value})
        refused(partial(draw, bundle, config="other"), ValueError, *words)
    assert not list(tmp_path.glob("*/docs"))


@pytest.mark.parametrize("name", runs.like_others_slow)
def test_every_bundle_can_be_drawn(name, tmp_path, monkeypatch):
    """Without data, and none are simulated for it."""
    simulated = []
    monkeypatch.setattr("common.commands.simulate.simulate", lambda *args, **kwargs: simulated.append(args))
    draw(_bundle(tmp_path, train=json.loads(Path(f"bundles/{name}/configs/train.json").read_text())))
    picture = imread(tmp_path / "docs" / "data_flow.png")
    assert picture.shape[1] >= 1600 and picture.std() > 0.05 and not simulated
