"""Refuse overrides whose keys no config has, with the nearest keys, texts for switches, and lists without a file."""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigComponent, ConfigParser

_OF_RUN = {*inspect.signature(monai.bundle.run).parameters, "workflow_type", "properties_path", "traceback"}
_OF_ANY_COMPONENT = ("_mode_", "_disabled_", "_requires_", "_desc_")
_MOST = 4  # keys that a message proposes
_SWITCH_WORDS = {"true", "false"}


def refuse_unknown_keys(arguments: Mapping[str, Any]) -> None:
    """Refuse overrides of a run whose keys its configs do not have, texts for switches, and configs that lack a file.

    Args:
        arguments: of ``monai.bundle.run``: config files, and overrides by their keys.

    Raises:
        ValueError: lists these keys, each with the nearest keys; names a switch that is text; or names the configs
            that have what is run.
    """
    config = ConfigParser(ConfigParser.load_config_files(arguments.get("config_file", {})))
    unknown = [key for key in arguments if key not in _OF_RUN and not has_key(config.get(), key)]
    if unknown:
        lines = [f"--{key}: the configs have no such key{suggest_key(key, [config.get()])}" for key in unknown]
        raise ValueError("\n".join(lines))
    check_switches(config, arguments)
    _refuse_missing_file(config, arguments)


def _refuse_missing_file(config: ConfigParser, arguments: Mapping[str, Any]) -> None:
    """Refuse configs whose ``run`` refers to what another config beside the first one has, before hours are spent."""
    given = arguments.get("config_file", "")
    files = [str(file) for file in (given.split(",") if isinstance(given, str) else given)]
    wanted = {split_key(key)[0] for key in re.findall(r"@([\w#:]+)", str(config.get("run", "")))}
    for key in sorted(wanted - set(config.get())):
        for other in sorted(Path(files[0]).parent.glob("*.json")) if files else ():
            if key in ConfigParser.load_config_file(str(other)):
                whole = ",".join(f"'{file}'" for file in [files[0], str(other), *files[1:]])
                raise ValueError(f'run needs {key}, which {other.name} has: --config_file "[{whole}]"')


def check_switches(config: ConfigParser, overrides: Mapping[str, Any]) -> None:
    """Refuse the texts true and false, and what is no bool for a key that has one: all text would count as True.

    Raises:
        ValueError: names the key and the value.
    """
    for key, value in overrides.items():
        is_value = isinstance(value, bool) or str(value).startswith(("$", "@", "auto"))
        words = {str(word).lower() for word in (value if isinstance(value, list | tuple) else [value])}
        if not is_value and (words & _SWITCH_WORDS or isinstance(config.get(key), bool)):
            raise ValueError(f"--{key} is {value!r}, expected True or False.")


def has_key(content: dict, key: str) -> bool:
    """Whether a config has a key, or may have it: an argument of a component, or a row of a table within a component.

    Args:
        content: the config.
        key: such as ``evaluator#amp``.
    """
    config = ConfigParser(content)
    *above, name = split_key(key)
    places = [config.get("#".join(above[:depth])) for depth in range(1, len(above) + 1)]
    arguments = [_list_arguments(place) for place in places]
    if places and isinstance(places[-1], dict) and not arguments[-1]:
        return name in places[-1] or any(arguments)
    return key in config or (bool(arguments) and not {name, "**"}.isdisjoint(arguments[-1]))


def split_key(key: str) -> list[str]:
    """The parts of a key: ``train``, ``dataset`` and ``data`` of ``train#dataset::data``."""
    return re.split("#|::", key)


def suggest_key(key: str, contents: Iterable[dict], others: Iterable[str] = ()) -> str:
    """Ask, at the end of a sentence, whether one of the nearest keys was meant.

    Args:
        key: which is unknown.
        contents: of the configs whose keys it may have meant.
        others: further names that it may have meant.
    """
    known = {*others}.union(*(_list_keys(content) for content in contents))
    known = {other for other in known if not key.startswith(f"{other}#")}
    same = sorted((other for other in known if split_key(other)[-1] == key), key=len)
    close = [*dict.fromkeys([*same, *difflib.get_close_matches(key, sorted(known))])][:_MOST]
    return f"; did you mean --{' or --'.join(close)}?" if close else "."


def _list_keys(value: Any, above: str = "") -> Iterator[str]:
    """Every key of a config, and those that its components accept."""
    named = value if isinstance(value, dict) else {}
    arguments = [name for name in _list_arguments(value) if name not in (*_OF_ANY_COMPONENT, "**")]
    yield from (f"{above}{name}" for name in [*named, *arguments])
    for name, item in named.items() or (enumerate(value) if isinstance(value, list) else ()):
        yield from _list_keys(item, f"{above}{name}#")


def _list_arguments(value: Any) -> list[str]:
    """Names of the arguments of a component; "**" if it may take others; none if the value is no component.

    In this package, ``**options`` are arguments of the bases, or of the class in ``options_of``.
    """
    if not isinstance(value, dict) or "_target_" not in value:
        return []
    try:
        made_by: Any = pydoc.locate(ConfigComponent(config=value).resolve_module_name())
        parameters = [*inspect.signature(made_by).parameters.values()]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            if made_by.__module__.partition(".")[0] != str(__package__).partition(".")[0]:
                return ["**"]
            kinds = [*inspect.getmro(made_by), *inspect.getmro(getattr(made_by, "options_of", object))]
            parameters = [p for kind in kinds for p in inspect.signature(kind).parameters.values()]
    except Exception:  # only a run shows what it is
        return ["**"]
    return [*_OF_ANY_COMPONENT, *(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))]
