"""Print the data flow of a method, from its JSON, as Mermaid, which GitHub renders.

python .docs/draw.py bundles/udean
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

_FILLS = ("#cfe2f3", "#fce5cd", "#d9ead3", "#ead1dc", "#fff2cc", "#d9d2e9")
_STYLE = "color:#111,stroke:#555"


def draw_losses(bundle: str) -> None:
    """Print a diagram of what the losses need, with their keys, one for each stage in a bundle's train.json.

    A bundle that is trained on each exam has no train.json; its graph and players are those of the inferer.
    Neither data nor weights are read.

    Args:
        bundle: folder of the bundle.
    """
    file = Path(bundle) / "configs" / "train.json"
    trains = file.is_file()
    parser = ConfigParser()
    parser.read_config(str(file if trains else file.with_name("inference.json")))
    parser.parse()
    trainer = parser["train#trainer" if trains else "inferer"]
    # The stages of a cascade are alike, and have no list.
    stages = parser["stages"] if trainer.get("stages") == "@stages" else [{}]
    for number, stage in enumerate(stages, 1):
        keys = {**trainer, **stage}
        values = [keys[name] for name in ("graph", "players")]
        graph, players = (parser[value[1:]] if isinstance(value, str) else value for value in values)
        owner = f"stages#{number - 1}" if stage else "train#trainer" if trains else "inferer"
        place = values[1][1:] if isinstance(values[1], str) else f"{owner}#players"
        title = [f"---\ntitle: stage {number}\n---"] if len(stages) > 1 else []
        print("\n".join(["```mermaid", *title, *_write_flowchart(graph["steps"], players, place), "```"]))


def _write_flowchart(
    steps: dict[str, Sequence[str]], players: Mapping[str, Mapping[str, Any]], place: str
) -> list[str]:
    """Lines of Mermaid. Prefixes keep names apart from each other and from Mermaid's own words.

    Args:
        steps: ``{"output": ["network", "input", ...]}`` in order of computation.
        players: with networks and losses, as in JSON.
        place: of the players in the config.
    """
    lines, styles, owners, needed = [], [], {}, {}
    for i, (name, player) in enumerate(players.items()):
        inputs = dict.fromkeys(
            tensor for row in player["losses"].values() for tensor in row[2:] if isinstance(tensor, str)
        )
        terms = "<br/>".join([f"{place}#{name}#losses#", *player["losses"]])
        lines.append(f'  {_join_names(inputs)} -.-> p_{name}{{{{"{terms}"}}}}:::player{i}')
        styles.append(f"  classDef player{i} fill:{_FILLS[i % len(_FILLS)]},{_STYLE}")
        owners.update(dict.fromkeys(player.get("networks") or [name], f":::player{i}"))
        needed.update(inputs)
    for output, (network, *others) in reversed(steps.items()):
        if output in needed:
            needed.update(dict.fromkeys(others))
            box = f't_{output}["{network}<br/>→ {output}"]{owners.get(network, ":::fixed")}'
            lines.insert(0, f"  {_join_names(others)} --> {box}" if others else f"  {box}")
    batch = [f"  t_{name}([{name}]):::batch" for name in sorted(needed) if name not in steps]
    styles += [f"  classDef fixed fill:#eee,{_STYLE}", f"  classDef batch fill:#fff,{_STYLE}"]
    return ["flowchart LR", *batch, *lines, *styles]


def _join_names(tensors: Iterable[str]) -> str:
    return " & ".join(f"t_{name}" for name in tensors)


if __name__ == "__main__":
    draw_losses(sys.argv[1])
