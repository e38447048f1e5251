"""Checks of a run's config that MONAI lacks: keys that nothing reads, and values of another type."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import inspect
import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver
from monai.bundle.config_parser import merge_kv
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import ensure_tuple

from .runtime.values import parse_bool

_OF_RUN = {*inspect.signature(monai.bundle.run).parameters, "workflow_type", "properties_path", "traceback"}
_READ_BY_MONAI = {"imports", "initialize", "run", "finalize"}
# Top-level keys that MONAI looks up in a bundle. An overlay may set them.
_LOOKED_UP = _READ_BY_MONAI | {
    known["id"].split("::")[0]  # type: ignore[attr-defined, index]
    for known in (TrainProperties | InferProperties).values()
    if "id" in known
}
_OF_COMPONENTS = {"_target_", "_mode_", "_disabled_", "_requires_", "_desc_"}
_MOST = 4  # number of keys that a message proposes


def check_overrides(arguments: Mapping[str, Any]) -> None:
    """Refuse the config of a run that has keys that nothing reads, or values of another type.

    Args:
        arguments: of ``monai.bundle.run``: config files, and overrides by their keys.

    Raises:
        ValueError: lists overrides and overlay keys that nothing reads, with similar keys; overrides of another type
            than the config's value; missing keys that are set to null; overlays of weights that were moved; and
            references to missing keys in what the run will build, with the config that has the key, and components
            without an argument that they need.
    """
    parse_bool(arguments.get("traceback", False), "--traceback")
    overlays = {file: ConfigParser.load_config_file(file) for file in ensure_tuple(arguments.get("config_file", ()))}
    overrides = {key: value for key, value in arguments.items() if key not in _OF_RUN}
    entries = {arguments.get(name) for name in ("run_id", "init_id", "final_id")}
    # What a key is for may come in another overlay, and what read it may be replaced.
    config = _Config({}, [*overlays.values(), overrides], entries)
    new, problems = [], []
    for number, (file, overlay) in enumerate(overlays.items()):
        of_weights = {"digest", "trained"} <= overlay.keys()  # these also have keys that no config reads
        for key, value in overlay.items():
            plain = key.removeprefix("+")
            free = of_weights or plain in _LOOKED_UP | entries or plain.startswith(("_", "run_"))
            if number and plain not in config.parser and not (free and get_top_key(plain) == plain):
                new.append((f"{file}: ", plain, value))
            config.set(key, value)
        if "checkpoint" not in arguments and (problem := _find_moved(file, overlay)):
            problems.append(problem)
    for key, value in overrides.items():
        if problem := config.find_misfit(key, value):
            problems.append(f"--{problem}")
        elif key not in config.parser:
            new.append(("--", key, value))
    # First, because a key may belong to the config that is missing.
    problems += config.list_missing(overrides, [*overlays])
    problems += [start + problem for start, key, value in new if (problem := config.find_unread(key, start, value))]
    if problems:
        raise ValueError("\n".join(problems))


def find_unread(content: dict, key: str) -> str | None:
    """Say why nothing in a config reads a key, with similar keys; None if the config has it or something reads it.

    Args:
        content: the config.
        key: an override's key, such as ``evaluator#amp``.
    """
    config = _Config(content, [content])
    return None if key in config.parser else config.find_unread(key)


def get_top_key(key: str) -> str:
    """The top-level key of a key: ``train`` for ``train#dataset::data``."""
    return _split_key(key)[0]


def find_components(content: dict) -> dict[str, dict]:
    """Components of a config by their keys; those that are not nested come first."""
    components = [(path, value) for path, value in _walk(content) if _is_component(value)]
    return {"#".join(path): value for path, value in sorted(components, key=lambda item: len(item[0]))}


def list_arguments(component: dict) -> list[str]:
    """Names of the arguments of a component; "**" if it takes others too; none if they are unknown."""
    try:
        parameters = _list_all_parameters(_locate(component["_target_"])).values()
    except (TypeError, ValueError):
        return []
    return ["**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]


class _Config:
    """A merged config.

    Args:
        content: of the config.
        sources: whose references count.
        entries: top-level keys that are run.
    """

    def __init__(self, content: dict, sources: Sequence[Mapping], entries: set | frozenset = frozenset()) -> None:
        self.parser, self.read = ConfigParser(config=content), _READ_BY_MONAI | entries
        self.run = [entry for entry in ("initialize", "run", "finalize", *entries) if entry]
        self.references = {name for source in sources for _, value in _walk(source) for name in _find_references(value)}

    def set(self, key: str, value: Any) -> None:
        """Set a key, if there is a place for it."""
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError):
            merge_kv(self.parser, key, value)

    def find_unread(self, key: str, start: str = "--", value: Any = "") -> str | None:
        """Say why nothing reads a new key, with similar keys; None if something reads it.

        Args:
            key: of an override or overlay.
            start: of the message; "--" for an override.
            value: of the key.
        """
        *above, name = _split_key(key)
        while above and "#".join(above) not in self.parser:
            name = above.pop()
        path, place, missing = "#".join(above), self.parser["#".join(above)], len(above) + 1 < len(_split_key(key))
        if not isinstance(place, dict):
            return f"{key}: {path} is {place}; set what it refers to, or replace {path} as a whole."
        if not missing and self._is_read(place, above, name, value in (None, "$None")):
            return None
        arguments = list_arguments(place) if _is_component(place) else []
        close = difflib.get_close_matches(name, {*place, *arguments} - {name, *_OF_COMPONENTS}, n=3)
        components = find_components(self.parser.get()).items()
        homes = [home for home, component in components if name in list_arguments(component)]
        meant = [f"{path}#{other}" if path else other for other in close] + [f"{home}#{name}" for home in homes]
        paths = [parts for parts, _ in _walk(self.parser.get()) if parts]
        meant += ["#".join(parts) for parts in paths if parts[-1].startswith(f"{name}/")]  # losses, as image_cycle/l1
        dashes = "--" if start == "--" else ""
        proposed = " or ".join(dashes + other for other in [*dict.fromkeys(meant)][:_MOST])
        there = ", ".join(other for other in place if other not in _OF_COMPONENTS) if path and not arguments else ""
        owner = f"{path} has" if path else "the configs have"
        answer = f"; did you mean {proposed}?" if proposed else f"; it has {there}." if there else "."
        return f"{key}: {owner} no such key{answer}"

    def find_misfit(self, key: str, value: Any) -> str | None:
        """Say what is wrong with an override's value; None if it fits."""
        new, default = key not in self.parser, self.parser.get(key)
        if value in ("true", "false") and self._would_misread_text(_split_key(key)):
            return f"{key} is '{value}', but the config reads a switch; give True or False."
        if value == "null" or (value is None and (new or default is not None)):
            return f"{key} is {value}, which MONAI ignores; for no value give --{key} '$None'."
        if isinstance(value, str) and value.startswith(("$", "@", "%")):
            return None
        if isinstance(default, bool):
            return None if str(value).lower() in ("true", "false") else f"{key} is {value!r}, expected True or False."
        word = isinstance(value, bool) or (isinstance(value, str) and re.fullmatch(r"[A-Za-z]\w*", value))
        if isinstance(default, (int, float)) and word:
            return f"{key} is {value!r}, expected a number such as {default}."
        if isinstance(default, list) and isinstance(value, (int, float)):
            return f"{key} is {value}, expected a list, as in --{key} '{default}'."
        return None

    def list_missing(self, overrides: Mapping[str, Any], files: Sequence[str]) -> list[str]:
        """Say which keys and arguments are missing that the run will need, and which config next to the given has them.

        MONAI builds an entry of ``run`` when it comes to it, so it would say this only after a training.

        Args:
            overrides: of the run.
            files: the configs of the run.
        """
        whole, problems = _Config(copy.deepcopy(self.parser.get()), []), []
        for override, value in overrides.items():
            whole.set(override, value)
        parser = whole.parser
        parser.resolve_macro_and_relative_ids()
        seen: set[str] = set()
        later = [entry for entry in self.run if entry in parser]
        while later:
            key = later.pop()
            for path, value in _walk(parser[key]):
                names = {"#".join(parts) for parts in _find_references(value)} - seen
                seen |= names
                later += [name for name in names if name in parser]
                where = "#".join((key, *path))
                problems += [
                    f"{where} refers to @{name}, which is in no config{_advise_on_missing(name, files, parser)}"
                    for name in sorted(names)
                    if name not in parser
                ]
                target = str(value["_target_"]) if _is_component(value) else ""
                if target.startswith("common.") and __package__ != "common" and _locate(target) is None:
                    problems.append(f"{where}: {target} is installed as {__package__}.{target.partition('.')[2]}.")
                elif target and (lacking := _list_lacking(value)):
                    advice = f"set {where}#{lacking[0]}"
                    if lacking[0] in ("params", "optimizer"):
                        advice = f'a player makes it itself, so add "_mode_": "callable", as --{where}#_mode_ callable'
                    problems.append(f"{where} lacks {' and '.join(lacking)} of {value['_target_']}; {advice}.")
        return problems

    def _is_read(self, place: dict, above: list[str], name: str, null: bool) -> bool:
        """Whether anything reads a new key of a dictionary."""
        if _is_component(place):
            arguments = list_arguments(place)
            return not arguments or "**" in arguments or name in _OF_COMPONENTS.union(arguments)
        if above and null:
            return False  # a row of a table that is not there cannot be left out
        if any(_is_component(self.parser["#".join(above[:depth])]) for depth in range(1, len(above))):
            return True
        parts = (*above, name)
        # A value may refer to the key, to a part of it, or to a whole that it is part of.
        referred = any(reference[: len(parts)] == parts[: len(reference)] for reference in self.references)
        return referred or (not above and name in self.read)

    def _would_misread_text(self, parts: tuple[str, ...]) -> bool:
        """Whether text would count as true for a value's reader: an expression, or a component of another package."""
        readers: dict[tuple[str, ...], Any] = {}
        latest: dict[tuple[str, ...], Any] = {parts: ""}
        while latest:
            readers |= latest
            leaves = {path: value for path, value in _walk(self.parser.get()) if path not in readers}
            latest = {path: value for path, value in leaves.items() if readers.keys() & _find_references(value)}
        if any(value.startswith("$") for value in readers.values()):
            return True
        owners = [self.parser.get("#".join(path[:-1])) for path in readers]
        return not all(_is_own_component(_locate(owner["_target_"])) for owner in owners if _is_component(owner))


def _find_moved(file: str, overlay: Mapping[str, Any]) -> str | None:
    """Report an overlay that names other weights than the file next to it; None if it names that file or none."""
    named, beside = overlay.get("checkpoint"), Path(file).with_suffix(".pt")
    if "digest" not in overlay or not isinstance(named, str) or named.startswith("$") or not beside.is_file():
        return None
    if Path(named).resolve() == beside.resolve():
        return None
    return (
        f"{file} names the weights {named}, but was moved: {beside.name} is next to it. Add --checkpoint {beside}, or "
        "write that path into the file."
    )


def _advise_on_missing(name: str, files: Sequence[str], parser: ConfigParser) -> str:
    """What to do about a missing key: add a config that has it, or refer to a similar key."""
    beside = sorted({path for file in files for path in Path(file).parent.glob("*.json")} - {*map(Path, files)})
    having = [str(path) for path in beside if name in ConfigParser(config=ConfigParser.load_config_file(path))]
    if having:
        return f"; add {' or '.join(having[:_MOST])} to --config_file, before {files[-1]}."
    close = difflib.get_close_matches(name, {"#".join(path) for path, _ in _walk(parser.get())}, n=2)
    return f"; did you mean @{' or @'.join(close)}?" if close else "."


def _list_lacking(component: dict) -> list[str]:
    """Arguments that a component needs to be made, and does not have; none if they are unknown."""
    if component.get("_mode_", "default") != "default" or component.get("_disabled_"):
        return []
    try:
        parameters = inspect.signature(_locate(component["_target_"])).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is p.empty and p.kind in named and p.name not in component]


def _split_key(key: str) -> tuple[str, ...]:
    return tuple(re.split("#|::", key))


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value within a value, with its path."""
    yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _walk(item, (*path, str(key)))


def _find_references(value: Any) -> set[tuple[str, ...]]:
    """Parts of the keys that a text refers to."""
    return (
        {_split_key(name) for name in ReferenceResolver.match_refs_pattern(value)} if isinstance(value, str) else set()
    )


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("_target_"), str)


@functools.cache
def _locate(target: str) -> Any:
    """The class or function of a component; None if only a run shows it."""
    try:
        return pydoc.locate(ConfigComponent(config={"_target_": target}).resolve_module_name())
    except Exception:
        return None


def _is_own_component(made_by: Any) -> bool:
    return made_by is None or str(made_by.__module__).startswith(str(__package__))


def _list_all_parameters(made_by: Any) -> dict[str, inspect.Parameter]:
    """Parameters of a class or function.

    In this package, ``**options`` are the parameters of the class or function in ``options_of``, or of the base class.

    Raises:
        TypeError, ValueError: when the signature is unknown.
    """
    parameters = dict(inspect.signature(made_by).parameters)
    rest = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    owner, *bases = [made_by]
    if isinstance(made_by, type):
        owner, *bases = [kind for kind in made_by.__mro__ if "__init__" in vars(kind)]
    # Other classes, such as torch.nn.Identity, may take options that they do not pass on.
    passed_to = (
        vars(owner).get("options_of", bases[0] if bases and _is_own_component(owner) else object) if rest else object
    )
    if passed_to is object:
        return parameters
    return {**_list_all_parameters(passed_to), **{name: p for name, p in parameters.items() if name not in rest}}
