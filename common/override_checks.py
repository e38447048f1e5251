"""Checks that `python -m monai.bundle run` lacks: unknown overrides, and readable errors."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import json
import logging
import os
import pydoc
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver
from monai.bundle.config_parser import merge_kv
from monai.bundle.properties import InferProperties, TrainProperties

from .cli_help import read
from .errors import INTERRUPTED, Output, report
from .values import is_true

# Arguments of `python -m monai.bundle run` itself.
_OF_RUN = {
    "run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file",
    "workflow_type", "properties_path",
}  # fmt: skip
_READ_BY_MONAI = {"imports", "initialize", "run", "finalize"}
# Top-level keys that MONAI looks up in a bundle. An overlay may set them.
_LOOKED_UP = _READ_BY_MONAI | {
    known["id"].split("::")[0]  # type: ignore[attr-defined, index]
    for known in (TrainProperties | InferProperties).values()
    if "id" in known
}
_OF_COMPONENTS = {"_target_", "_mode_", "_disabled_", "_requires_", "_desc_"}
_MOST = 4  # number of keys that a message proposes


def top_of(key: str) -> str:
    """The top-level key of a key: ``train`` for ``train#dataset::data``."""
    return re.split("#|::", key)[0]


def check_device(device: torch.device | str) -> None:
    """Refuse a GPU that does not exist.

    Raises:
        ValueError: when torch finds no GPU, or no GPU with this number.
    """
    device = torch.device(device)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} of them, counted from 0" if count else "no GPU"
        raise ValueError(f"device is {device}, but torch finds {found}; leave --device out, or set it to cpu.")


def check(argv: Sequence[str] | None = None) -> None:
    """Refuse unknown overrides, and report every later error by its first cause.

    MONAI accepts a misspelt ``--key`` silently, and wraps errors in errors of its own. This function reads the command
    line of ``python -m monai.bundle run`` when a run starts. In another program, such as a server that loads the
    bundle, it does nothing.

    With ``--traceback True`` the traceback is printed above the message.

    Args:
        argv: the command line; default is that of this process.

    Raises:
        ValueError: lists overrides and overlay keys that nothing reads, with similar keys; overrides of another type
            than the config's value; and overlays that set a missing key to null.
    """
    argv = list(sys.argv if argv is None else argv)
    if "run" not in argv[1:2] or Path(argv[0]).parent.name != "bundle":
        return
    sys.excepthook = ending = _Ending()
    output, sys.stdout = sys.stdout, Output(sys.stdout)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_why)
        if getattr(handler, "stream", None) is output:
            handler.setStream(sys.stdout)  # type: ignore[attr-defined]
    given = _given(argv)
    ending.with_traceback = is_true(given.pop("traceback", "false") or "true", "--traceback")
    entries = {given.get(name) for name in ("run_id", "init_id", "final_id")}
    files = _files(given.get("config_file", []))
    parser, problems = _merged(files, entries)
    if "checkpoint" not in given:
        problems += [problem for file in files if (problem := _elsewhere(file))]
    config = _Config(parser.get())
    ending.go_on = config.going_on()
    config.read |= entries
    overrides = {key: value for key, value in given.items() if key not in _OF_RUN}
    config.add_references(overrides)
    for key, value in overrides.items():
        place, _, left = _reached(key, config.content)
        row = isinstance(place, dict) and not _is_component(place) and len(left) == 1 and "#" in key
        # A missing row cannot be left out.
        problem = config.unread(key, "--", row and value == "$None") or config.unfit(key, value)
        problems += [f"--{problem}"] if problem else []
    if problems:
        raise ValueError("\n".join(problems))


def unread(content: dict, key: str) -> str | None:
    """Why nothing in a config reads a key, with similar keys; None if something reads it.

    Args:
        content: the config.
        key: an override's key, such as ``evaluator#amp``.
    """
    return _Config(content).unread(key, "--")


class _Ending:
    """An excepthook that prints why a run ended: an error or an interruption."""

    def __init__(self) -> None:
        self.with_traceback = False
        self.go_on = ""

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            if self.with_traceback:
                traceback.print_exception(error)
            print(f"\ninterrupted{self.go_on}.", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        print(f"\n{report(error, self.with_traceback)}", file=sys.stderr)


def _says_why(record: logging.LogRecord) -> bool:
    """A log filter that drops Ignite's line about an engine that Ctrl-C ended; another message reports that."""
    return not record.getMessage().endswith("is terminating due to exception: ")


def _given(argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line and of its ``--args_file``; "" for an option without a value."""
    given: dict[str, Any] = {key: "" if value is None else value for key, value in read(argv[2:])[1].items()}
    if "args_file" in given and os.path.isfile(given["args_file"]):
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    return given


def _files(files: str | Sequence[str]) -> Sequence[str]:
    """Paths of config files; a command line may give them as one text."""
    if not isinstance(files, str):
        return files
    text = files.strip()
    try:
        return json.loads(text.replace("'", '"')) if text.startswith(("[", "(")) else [text]
    except ValueError:
        return [name.strip(" '\"") for name in text.strip("[]()").split(",")]


def _elsewhere(file: str) -> str | None:
    """Report an overlay that names other weights than the file next to it; None if it names that file or none."""
    overlay = ConfigParser.load_config_file(file)
    named, own = overlay.get("checkpoint"), Path(file).with_suffix(".pt")
    if "digest" not in overlay or not isinstance(named, str) or named.startswith("$") or not own.is_file():
        return None
    if Path(named).resolve() == own.resolve():
        return None
    return (
        f"{file} names the weights {named}, but was moved: {own.name} is next to it. Add --checkpoint {own}, or write "
        "that path into the file."
    )


def _merged(files: Sequence[str], entries: Set[str | None]) -> tuple[ConfigParser, list[str]]:
    """Merge config files in order, and check the overlays.

    Args:
        files: paths of the config files.
        entries: keys that the command line runs.

    Returns:
        The merged config, and a sentence for each problem.
    """
    parser = ConfigParser(config={})
    new: list[tuple[str, str, str]] = []
    for number, file in enumerate(files):
        overlay = ConfigParser.load_config_file(file)
        own = _Config(overlay)
        of_weights = {"digest", "trained"} <= overlay.keys()  # these also have keys that no config reads
        for key, value in overlay.items():
            plain = key.removeprefix("+")
            place, before, left = _reached(plain, parser.get())
            top = _parts(plain)[0]
            free = number == 0 or of_weights or top in _LOOKED_UP | entries or top.startswith(("_", "run_"))
            # A later key or overlay may use this key. A missing key cannot be left out.
            checked = left and (before or not (free or own.is_referred_to((top,))))
            if checked and (problem := _Config(parser.get()).unread(plain, "", value is None)):
                new.append((file, plain, problem))
            if not left or (isinstance(place, dict) and len(left) == 1):
                merge_kv(parser, key, value)
    final = _Config(parser.get())
    return parser, [f"{file}: {problem}" for file, key, problem in new if not final.is_referred_to(_parts(key))]


class _Config:
    """A merged config, and which keys it reads.

    Args:
        content: the config.
    """

    def __init__(self, content: dict) -> None:
        self.content = content
        self.read: set[str | None] = set(_READ_BY_MONAI)
        self.references: set[tuple[str, ...]] = set()
        self.add_references(content)

    def add_references(self, content: Any) -> None:
        """Add the references in these values."""
        for _, value in _leaves(content):
            if isinstance(value, str):
                self.references |= set(map(_parts, ReferenceResolver.match_refs_pattern(value)))

    def is_referred_to(self, parts: tuple[str, ...]) -> bool:
        """Whether a value refers to a key, to a part of it, or to a whole that it is part of."""
        return any(reference[: len(parts)] == parts[: len(reference)] for reference in self.references)

    def unread(self, key: str, dashes: str, left_out: bool = False) -> str | None:
        """Why nothing reads a key, with similar keys; None if something reads it.

        Args:
            key: a key of an override or overlay.
            dashes: what to write before the proposed keys.
            left_out: whether the key is to be left out; it must then exist.
        """
        place, before, left = _reached(key, self.content)
        path = "#".join(before)
        if not left or (not left_out and self._reads(place, before, left)):
            return None
        if isinstance(place, str) and re.fullmatch(r"[@%][\w:#]+", place):
            return f"{key}: {path} is the same as {place[1:]} ({place}); set it there, or replace {path} as a whole."
        if isinstance(place, str) and place.startswith("$"):
            return f"{key}: {path} is an expression ({place}); replace it as a whole."
        if isinstance(place, list) and left[0].isdigit():
            return f'{key}: {path} has {len(place)} items; an overlay adds some with "+{path}": [...].'
        if _is_component(place) and len(left) > 1 and left[0] in _arguments(place):
            return f"{key}: {path} has no {left[0]} yet; give {dashes}{_nested(path, left)}."
        meant = self._meant(place, path, left)
        proposed = f"; did you mean {' or '.join(dashes + text for text in meant)}?" if meant else "."
        return f"{key}: {f'{path} has' if path else 'the configs have'} no such key{proposed}"

    def unfit(self, key: str, value: Any) -> str | None:
        """What is wrong with an override's value; None if it fits."""
        place, _, left = _reached(key, self.content)
        text = str(value).strip()
        if text in ("true", "false") and isinstance(value, str) and self._needs_switch(_parts(key)):
            return f"{key} is '{text}', but the config reads a switch; give True or False."
        if isinstance(value, str) and (text == "null" or (text == "None" and (left or place is not None))):
            return f"{key} is {text}, which MONAI ignores; for no value give --{key} '$None'."
        return None if left else _of_another_kind(key, value, place)

    def going_on(self) -> str:
        """How to continue an interrupted run, as the end of a message."""
        if "resume" in self.content:
            return "; the same command with --resume True goes on from the last state that was saved"
        if "skip_existing" in self.content:
            return "; the same command with --skip_existing True goes on with what is left"
        return ""

    def _reads(self, place: Any, before: list[str], left: list[str]) -> bool:
        """Whether anything reads a key that the config does not have yet."""
        if len(left) > 1 or not isinstance(place, dict):
            return False
        if not before and left[0] in self.read:
            return True
        if _is_component(place):
            return _takes(place, left[0])
        at, within = self.content, False
        for part in before:
            at = at[part] if isinstance(at, dict) else at[int(part)]
            within = within or _is_component(at)
        return within or self.is_referred_to((*before, *left))

    def _needs_switch(self, parts: tuple[str, ...]) -> bool:
        """Whether text would count as true for a value's reader: an expression, or a component of another package."""
        readers, new = set(), {parts}
        while new:
            readers |= new
            new = set()
            for path, value in _leaves(self.content):
                names = ReferenceResolver.match_refs_pattern(value) if isinstance(value, str) else ()
                if path not in readers and readers & set(map(_parts, names)):
                    if value.startswith("$"):
                        return True
                    new.add(path)
        return not all(_is_ours(_reached("#".join(path[:-1]), self.content)[0]) for path in readers)

    def _components(self) -> Iterator[tuple[str, dict]]:
        """Components with their paths."""
        todo: list[tuple[tuple[str, ...], Any]] = [((), self.content)]
        while todo:
            path, value = todo.pop(0)
            if _is_component(value):
                yield "#".join(path), value
            todo += [((*path, key), item) for key, item in _items(value)]

    def _meant(self, place: Any, path: str, left: list[str]) -> list[str]:
        """Existing keys that resemble a missing one, and components that have an argument of its name."""
        names = [str(key) for key in place] if isinstance(place, dict) else []
        names += _arguments(place) if _is_component(place) else []
        close = difflib.get_close_matches(left[0], [name for name in names if name not in _OF_COMPONENTS], n=3)
        meant = [f"{path}#{name}" if path else name for name in dict.fromkeys(close)]
        for parts in (left,) if close else (left, left[-1:]):
            homes = [
                f"{home}#{'#'.join(parts)}" if len(parts) == 1 or parts[0] in component else _nested(home, parts)
                for home, component in self._components()
                if parts[0] in _arguments(component)
            ]
            if homes:
                break
        return [*meant, *(home for home in homes if home not in meant)][:_MOST]


def _parts(key: str) -> tuple[str, ...]:
    return tuple(key.replace("#", "::").split("::"))


def _items(value: Any) -> list[tuple[str, Any]]:
    """The items of a dictionary or a list, with their keys."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    return [(str(i), item) for i, item in enumerate(value)] if isinstance(value, list) else []


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is not a dictionary or a list, with its path."""
    if not isinstance(value, (Mapping, list)):
        yield path, value
    for key, item in _items(value):
        yield from _leaves(item, (*path, key))


def _reached(key: str, content: dict) -> tuple[Any, list[str], list[str]]:
    """Follow a key as far as it exists: the value there, and the key's parts before and after that point."""
    parts = list(_parts(key))
    place: Any = content
    for depth, part in enumerate(parts):
        if isinstance(place, dict) and part in place:
            place = place[part]
        elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        else:
            return place, parts[:depth], parts[depth:]
    return place, parts, []


def _nested(path: str, parts: Sequence[str]) -> str:
    """The option that sets the first part of a key to a dictionary with the other parts."""
    inner = "".join(f"{{'{part}': " for part in parts[1:]) + "..." + "}" * (len(parts) - 1)
    return f'{path}#{parts[0]} "{inner}"'


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("_target_"), str)


@functools.cache
def _located(target: str) -> Any:
    """The class or function that makes a component; None if only a run shows it."""
    if target.startswith("$"):
        return None
    try:
        module = None if "." in target else ComponentLocator().get_component_module_name(target)
        return pydoc.locate(f"{module}.{target}" if isinstance(module, str) else target)
    except Exception:
        return None


def _is_ours(owner: Any) -> bool:
    """Whether the owner of a value is a component of this package, or not a component."""
    made_by = _located(owner["_target_"]) if _is_component(owner) else None
    return made_by is None or str(made_by.__module__).startswith(str(__package__))


def _parameters(component: dict) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a component, including those behind ``**options``; None if they are unknown."""
    made_by = _located(component["_target_"])
    try:
        return None if made_by is None else _with_options(made_by)
    except (TypeError, ValueError):
        return None


def _with_options(made_by: Any) -> dict[str, inspect.Parameter]:
    """Parameters of a class or function.

    In this package, ``**options`` are the parameters of the class or function in ``options_of``, or of the base class.

    Raises:
        TypeError, ValueError: when the signature is unknown.
    """
    parameters = dict(inspect.signature(made_by).parameters)
    rest = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    if not rest:
        return parameters
    owner, *bases = [made_by]
    if isinstance(made_by, type):
        owner, *bases = [kind for kind in made_by.__mro__ if "__init__" in vars(kind)]
    # Other classes, such as torch.nn.Identity, may take options that they do not pass on.
    base = bases[0] if bases and str(owner.__module__).startswith(str(__package__)) else object
    passed_to = vars(owner).get("options_of", base)
    if passed_to is object:
        return parameters
    return {**_with_options(passed_to), **{name: p for name, p in parameters.items() if name not in rest}}


def _arguments(component: dict) -> list[str]:
    """Names of the arguments of a component."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in (_parameters(component) or {}).items() if p.kind in kinds]


def _takes(component: dict, name: str) -> bool:
    """Whether a component has an argument of this name, or its arguments are unknown."""
    parameters = _parameters(component)
    return (
        parameters is None
        or name in _OF_COMPONENTS
        or name in _arguments(component)
        or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    )


def _of_another_kind(key: str, value: Any, default: Any) -> str | None:
    """What is wrong with an override of another type than the config's value; None if it fits."""
    text = str(value).strip()
    if text.startswith(("$", "@", "%")):
        return None
    if isinstance(default, bool):
        return None if text.lower() in ("true", "false", "") else f"{key} is '{text}', expected True or False."
    if isinstance(default, (int, float)) and re.fullmatch(r"([A-Za-z]\w*)?", text) and text != "None":
        return f"{key} is '{text}', expected a number such as {default}."
    if _is_list(default) and re.fullmatch(r"-?[\d.]+(e-?\d+)?|", text):
        return f"{key} is {text or 'empty'}, expected a list, as in --{key} '{default}'."
    return None


def _is_list(default: Any) -> bool:
    """Whether a config's value is a list, or an expression that gives one."""
    if not isinstance(default, str) or not default.startswith("$"):
        return isinstance(default, list)
    try:
        # References become names, so that Python can parse the expression.
        tree = ast.parse(
            re.sub(r"@([\w:#]+)", lambda match: "_" + re.sub(r"\W", "_", match[1]), default[1:]), mode="eval"
        )
    except SyntaxError:
        return False
    branches = [tree.body.body, tree.body.orelse] if isinstance(tree.body, ast.IfExp) else [tree.body]
    return all(isinstance(branch, ast.List) for branch in branches)
