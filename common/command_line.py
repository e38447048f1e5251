"""What `python -m monai.bundle run` leaves to the bundle: misspelt overrides, and errors that can be read."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_parser import merge_kv

from .blocks import block_of, is_block, strings_in

# Arguments of `python -m monai.bundle run` itself.
_OF_RUN = {
    "run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file",
    "workflow_type", "properties_path",
}  # fmt: skip
_FLAG = re.compile("--|-[a-zA-Z]")  # as fire reads it: -1 is a number


class RunsFailedError(RuntimeError):
    """Some runs of a table failed; the others are done."""


def is_true(value: bool | str) -> bool:
    """A switch's value: the command line gives ``--resume true`` as text, a config gives true.

    Raises:
        ValueError: when the value is neither true nor false.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError(f"a switch is {value!r}, expected true or false.")
    return text == "true"


def check_whole(**values: float) -> None:
    """Refuse settings that are no whole number of at least 1.

    Raises:
        ValueError: with the name and the value of the first that is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1, for example --{name} 2.")


def check(argv: Sequence[str] | None = None) -> None:
    """Make the command line strict: refuse unknown overrides, and end every error with its first cause in plain words.

    MONAI accepts a misspelt ``--key`` without a word, and wraps what goes wrong in errors of its own. This reads the
    command line of ``python -m monai.bundle run``, so it stands first in a config's ``initialize``. In another program,
    such as a server that loads the bundle, it does nothing.

    Args:
        argv: the command line; default that of this process.

    Raises:
        ValueError: with each override whose key the configs lack, and the keys that resemble it; or that points into a
            block, and the key to set; and with each overlay that sets something within a block, or to null what no
            config has.
    """
    argv = list(sys.argv if argv is None else argv)
    if "run" not in argv[1:2] or Path(argv[0]).parent.name != "bundle":
        return
    sys.excepthook = _explain
    given: dict[str, str] = {}
    for i, word in enumerate(argv):
        if _FLAG.match(word):
            key, equals, value = word.lstrip("-").partition("=")
            following = argv[i + 1] if i + 1 < len(argv) and not _FLAG.match(argv[i + 1]) else ""
            given[key.replace("-", "_")] = value if equals else following
    if "args_file" in given and os.path.isfile(given["args_file"]):
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    files = given.get("config_file", [])
    if isinstance(files, str):
        text = files.strip()
        try:
            files = json.loads(text.replace("'", '"')) if text.startswith(("[", "(")) else [text]
        except ValueError:
            files = [name.strip(" '\"") for name in text.strip("[]()").split(",")]
    parser = ConfigParser(config={})
    problems = []
    for file in files:
        for key, value in ConfigParser.load_config_file(file).items():
            place, before, left = _reached(key.removeprefix("+"), parser)
            # A row that is not there cannot be left out, and a block is closed to overlays too.
            if left and before and (value is None or is_block(place)):
                problems.append(f"{file}: {_unknown(key.removeprefix('+'), parser)}")
            else:
                merge_kv(parser, key, value)
    problems += [f"--{problem}" for key in given if key not in _OF_RUN and (problem := _unknown(key, parser))]
    if problems:
        raise ValueError("\n".join(problems))


def _reached(key: str, parser: ConfigParser) -> tuple[Any, list[str], list[str]]:
    """How far a key leads: what stands there, and the key's parts up to it and after it; never into a block."""
    parts = key.replace("#", "::").split("::")
    place: Any = parser.get()
    for depth, part in enumerate(parts):
        if isinstance(place, dict) and part in place and not is_block(place):
            place = place[part]
        elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        else:
            return place, parts[:depth], parts[depth:]
    return place, parts, []


def _unknown(key: str, parser: ConfigParser) -> str | None:
    """What is wrong with an override's key, whose macros the parser has not resolved yet; None when nothing is."""
    place, before, left = _reached(key, parser)
    path = "#".join(before)
    if not left:
        return None
    if is_block(place):
        return _in_block(key, left, place, path)
    if isinstance(place, str) and place.startswith(("%", "@")):
        return f"{key}: {path} is the same as {place[1:]} ({place}); set it there, or replace {path} as a whole."
    return f"{key}: {f'{path} has' if path else 'the configs have'} no such key{_resembling(left[0], place)}"


def _in_block(key: str, parts: list[str], place: dict, path: str) -> str:
    """What to set instead of a key in a block."""
    block, content = f"{path} is the block {place['_target_'].removeprefix('%')}", block_of(place)
    for part in parts:
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            return f"{key}: {block}, which has no such key{_resembling(part, content)}"
    used = [
        ref.replace("::", "#") for text in strings_in(content) for ref in ReferenceResolver.match_refs_pattern(text)
    ]
    advice = f"set --{' or --'.join(dict.fromkeys(used))}" if used else f"replace {path} as a whole in an overlay"
    return f"{key}: {block}, which overrides do not reach into; {advice}."


def _resembling(name: str, place: Any) -> str:
    """The end of a sentence: the keys of a place that a name resembles."""
    names = [str(key) for key in place if not str(key).startswith("_")] if isinstance(place, dict) else []
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An excepthook: the traceback, then the first cause by itself."""
    traceback.print_exception(kind, error, trace)
    while error.__cause__ is not None:
        error = error.__cause__
    print(f"\nerror: {error}", file=sys.stderr)
