"""Blocks: components that stand once, in this package's configs, and that configs of bundles take by MONAI's macros.

A config takes a block as ``{"_target_": "%<path of training.json>::trainer"}``, with what it adds to it beside the
``_target_``; the block has ``"_mode_": "callable"``. So it is a dictionary before MONAI resolves the macro: an override
into it does no harm, and :func:`common.override_checks.check` can answer it. In an exported bundle all are written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[1]  # macros are relative to it


def is_block(value: Any) -> bool:
    """Whether a value of a config is a component that stands in another file."""
    return isinstance(value, dict) and str(value.get("_target_", "")).startswith("%")


def block_of(value: dict) -> dict:
    """The component that a block is, with what the config adds to it.

    Raises:
        FileNotFoundError, KeyError: when the file, or the id in it, is not there.
    """
    added = {key: item for key, item in value.items() if key != "_target_"}
    content = {key: item for key, item in _read(value["_target_"]).items() if key != "_mode_"}
    return {**content, **added}


def written_out(config: Any) -> Any:
    """A config with all that it takes from other files in its place; macros within the file stay.

    Raises:
        FileNotFoundError, KeyError: when a file, or an id in it, is not there.
    """
    if is_block(config):
        return written_out(block_of(config))
    if isinstance(config, dict):
        return {key: written_out(item) for key, item in config.items()}
    if isinstance(config, list):
        return [written_out(item) for item in config]
    if isinstance(config, str) and config.startswith("%") and ConfigParser.split_path_id(config[1:])[0]:
        return _read(config)
    return config


def strings_in(value: Any) -> Iterator[str]:
    """Every string in nested lists and dictionaries, without the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def _read(macro: str) -> Any:
    """What stands at ``%file::id``."""
    file, inside = ConfigParser.split_path_id(macro.removeprefix("%"))
    return ConfigParser(config=json.loads((ROOT / file).read_text()))[inside]
