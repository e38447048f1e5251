"""``.docs/draw.py``: what the diagram of a config has, and that each README has its bundle's."""

import json
import re
import runpy
from pathlib import Path

import pytest

from .bundles import runs

draw_losses = runpy.run_path(".docs/draw.py")["draw_losses"]

STEPS = {"image": ["join", "lr", "guide"], "sr": ["net", "image"], "one": ["kernel"], "unused": ["net", "hr"]}
PLAYERS = {
    "net": {"losses": {"image/l1": [1.0, "@l1", "sr", "hr"], "image/l2": [0, "@l2", "sr"], "sum": [1, "@s", "one"]}},
    "other": {"networks": ["join"], "losses": {"end": [1.0, "@l1", "image"]}},
}
# Networks that cannot be built, data that is not there.
CONFIG = {
    "graph": {"networks": {"net": "$open('weights.pt')"}, "batch_keys": "$open('data.json')", "steps": STEPS},
    "stages": [
        {"graph": {"steps": {"lr": ["net", "hr"]}}, "players": {"net": "%players#net"}},
        {"players": "@players"},
    ],
    "players": PLAYERS,
    "train": {"handlers": [], "trainer": {"graph": "@graph", "players": "@players"}},
}
EXPECTED = """```mermaid
flowchart LR
  t_guide([guide]):::batch
  t_hr([hr]):::batch
  t_lr([lr]):::batch
  t_lr & t_guide --> t_image["join<br/>→ image"]:::player1
  t_image --> t_sr["net<br/>→ sr"]:::player0
  t_one["kernel<br/>→ one"]:::fixed
  t_sr & t_hr & t_one -.-> p_net{{"players#net#losses#<br/>image/l1<br/>image/l2<br/>sum"}}:::player0
  t_image -.-> p_other{{"players#other#losses#<br/>end"}}:::player1
  classDef"""


def _bundle(folder, config):
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "train.json").write_text(json.dumps(config))
    return str(folder)


def test_what_losses_need_is_drawn_without_data_or_weights(tmp_path, capsys):
    draw_losses(_bundle(tmp_path, CONFIG))
    assert capsys.readouterr().out.startswith(EXPECTED)
    draw_losses(_bundle(tmp_path, {**CONFIG, "train": {"trainer": {"graph": "@graph", "stages": "@stages"}}}))
    said = capsys.readouterr().out
    assert re.findall("```mermaid\n---\ntitle: (.*)\n---\nflowchart", said) == ["stage 1", "stage 2"]
    assert EXPECTED.partition("flowchart")[2] in said and '{{"stages#0#players#net#losses#<br/>image/l1' in said


@pytest.mark.parametrize("name", runs.TINY)
def test_the_readme_has_the_diagrams_of_the_config(name, capsys):
    draw_losses(f"bundles/{name}")
    text = Path(f"bundles/{name}/docs/README.md").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert said in text and said.count("```mermaid") == text.count("```mermaid")
