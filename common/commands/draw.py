"""``python -m common draw``: a picture of a method, from its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.bundle import ConfigParser
from torch import nn

from ..graph import TensorGraph
from ..io.files import check_writable
from ..reports.data_flow import Flow, Losses, data_flow

_GRAPH = f"{TensorGraph.__module__}.{TensorGraph.__qualname__}"


def draw(bundle: str, output: str | None = None, config: str | Sequence[str] = ()) -> None:
    """Draw the data flow of a bundle: the steps of the graphs at the top of its train.json, and their players' losses.

    The players of ``graph`` are ``players``, those of ``graph_1`` are ``players_1``, those of ``kernel_graph`` are
    ``kernel_players``. Neither data nor weights are read.

    Args:
        bundle: folder of the bundle, for example bundles/udean.
        output: the PNG to write; default docs/data_flow.png of the bundle.
        config: names of the bundle's configs that are laid over train.json, for example paper or "[paper,demo]".

    Raises:
        FileNotFoundError: when a config is not there.
        ValueError: when train.json has no graph, or a graph or a loss row is wrong.
        IsADirectoryError: when a folder stands where the PNG is to be written.
    """
    names = ["train", *([config] if isinstance(config, str) else config)]
    files = [Path(bundle) / "configs" / f"{name}.json" for name in names]
    for file in files:
        if not file.is_file():
            hint = (
                "--bundle names the folder of a bundle" if file == files[0] else "--config names configs of the bundle"
            )
            raise FileNotFoundError(f"{file}: there is no such file; {hint}.")
    path = Path(bundle) / "docs" / "data_flow.png" if output is None else Path(str(output))
    check_writable(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"--output {path} is a folder; name a file in it, for example {path}/data_flow.png.")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    if "simulated" in parser:
        # Which losses are on may hang on whether there are data; the default would simulate a cohort to tell.
        parser["dataset_dir"] = "$@output_dir + '/data'"
    parser.parse()
    keys = [key for key, value in parser.get().items() if isinstance(value, dict) and value.get("_target_") == _GRAPH]
    if not keys:
        raise ValueError(f"{files[0]}: expected a {_GRAPH} at its top, for example under the key graph; there is none.")
    flows = {}
    for key in keys:
        try:
            flows[_title(key) if len(keys) > 1 else ""] = _flow(parser, key)
        except Exception as error:  # from an expression it may be anything, and MONAI wraps it
            first = error
            while first.__cause__ is not None:
                first = first.__cause__
            raise ValueError(f"{files[0]}, {key}: {first}") from error
    data_flow(path, flows)
    print(f"Wrote {path}: {', '.join(keys)}")


def _title(key: str) -> str:
    """What stands above a graph: "Stage 1" for graph_1, else the key."""
    head, _, number = key.rpartition("_")
    return f"Stage {number}" if head == "graph" and number.isdigit() else key


def _flow(parser: ConfigParser, key: str) -> Flow:
    """The graph under a key, without its networks, and the losses of its players."""
    names = {k: parser.get_parsed_content(f"{key}::{k}") for k in ("steps", "batch_keys") if k in parser[key]}
    graph = TensorGraph({name: nn.Identity() for name in parser[key]["networks"]}, **names)
    place = key.replace("graph", "players")
    players = parser.get(place) if place != key else None
    if not isinstance(players, dict):
        return Flow(graph.batch_keys, graph.steps)
    losses = {}
    for name, player in players.items():
        if player is not None:  # as an overlay sets one that it takes out
            losses[name] = _losses(parser, f"{place}::{name}")
            for term, inputs in losses[name].terms.items():
                graph.check_outputs(inputs, f"player '{name}', term '{term}'")
    return Flow(graph.batch_keys, graph.steps, losses)


def _losses(parser: ConfigParser, player: str) -> Losses:
    """The terms of the player under a key."""
    rows = parser[f"{player}::losses"]
    if not isinstance(rows, dict):
        found = type(rows).__name__
        raise ValueError(f'{player}::losses: expected {{"name": [weight, loss, input, ...]}}, found a {found}.')
    terms, unused = {}, []
    for name, row in rows.items():
        if row is None:  # as an overlay sets one that it takes out
            continue
        if not isinstance(row, list) or len(row) < 3:
            raise ValueError(f"{player}::losses, {name}: expected [weight, loss, input, ...], found {row!r}.")
        terms[name] = row[2:]
        if _is_zero(parser, f"{player}::losses::{name}::0"):
            unused.append(name)
    networks = f"{player}::networks"
    trained = parser.get_parsed_content(networks) if networks in parser else [player.rpartition("::")[2]]
    return Losses(trained, terms, frozenset(unused))


def _is_zero(parser: ConfigParser, weight: str) -> bool:
    """Whether a weight is 0 as configured; one that hangs on what training builds, such as a schedule, is not."""
    try:
        return parser.get_parsed_content(weight, instantiate=False) == 0
    except Exception:
        return False
