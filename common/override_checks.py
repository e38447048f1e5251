"""What `python -m monai.bundle run` leaves to the bundle: misspelt overrides, and errors that can be read."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_parser import merge_kv

from .blocks import block_of, is_block, strings_in
from .errors import INTERRUPTED, Output, report
from .values import is_true

# Arguments of `python -m monai.bundle run` itself.
_OF_RUN = {
    "run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file",
    "workflow_type", "properties_path",
}  # fmt: skip
_FLAG = re.compile("--|-[a-zA-Z]")  # as fire reads it: -1 is a number
_ALONE = {"stages"}  # lists of which one may be given by itself: --stages 2
# What goes on with an interrupted run, by the key that a config must have for it.
_GO_ON = {
    "resume": "; the same command with --resume true goes on from the last state that was saved",
    "skip_existing": "; the same command with --skip_existing true goes on with what is left",
}


def top_of(key: str) -> str:
    """The key at the top of a config that a key lies under: of ``train#dataset::data`` it is ``train``."""
    return re.split("#|::", key)[0]


def check_device(device: torch.device | str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        ValueError: when torch finds no GPU, or none of this number.
    """
    device = torch.device(device)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} of them, counted from 0" if count else "no GPU"
        raise ValueError(f"device is {device}, but torch finds {found}; leave --device out, or set it to cpu.")


def check(argv: Sequence[str] | None = None) -> None:
    """Make the command line strict: refuse unknown overrides, and end every error with its first cause in plain words.

    MONAI accepts a misspelt ``--key`` without a word, and wraps what goes wrong in errors of its own. This reads the
    command line of ``python -m monai.bundle run``, so it stands first in a config's ``initialize``. In another program,
    such as a server that loads the bundle, it does nothing.

    With ``--traceback True`` the traceback stands above the message.

    Args:
        argv: the command line; default that of this process.

    Raises:
        ValueError: with each override whose key the configs lack, and the keys that resemble it; or that points into a
            block, and the key to set; or whose value is of another kind than the config's; and with each overlay that
            sets something within a block, or to null what no config has; or when the device is not there.
    """
    argv = list(sys.argv if argv is None else argv)
    if "run" not in argv[1:2] or Path(argv[0]).parent.name != "bundle":
        return
    sys.excepthook = ending = _Ending()
    output, sys.stdout = sys.stdout, Output(sys.stdout)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_why)
        if getattr(handler, "stream", None) is output:
            handler.setStream(sys.stdout)
    given = _given(argv)
    ending.with_traceback = is_true(given.pop("traceback", "false") or "true", "--traceback")
    parser, problems = _merged(given.get("config_file", []))
    ending.go_on = next((text for key, text in _GO_ON.items() if key in parser), "")
    for key, value in given.items():
        if key not in _OF_RUN:
            problem = _unknown(key, parser) or _of_another_kind(key, value, parser[key])
            problems += [f"--{problem}"] if problem else []
    if problems:
        raise ValueError("\n".join(problems))


def running_parser() -> ConfigParser | None:
    """The parser that evaluates the expression which called this; None when no configuration is being run.

    MONAI gives an expression no name for it, so it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


class _Ending:
    """An excepthook: what is said when a run ends with an error, or is interrupted."""

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
    """Whether a line of a log is none of ignite's that an engine ends, for no reason: by Ctrl-C, which we tell of."""
    return not record.getMessage().endswith("is terminating due to exception: ")


def _given(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line sets, and the file that it names with ``--args_file``."""
    given: dict[str, Any] = {}
    for i, word in enumerate(argv):
        if _FLAG.match(word):
            key, equals, value = word.lstrip("-").partition("=")
            following = argv[i + 1] if i + 1 < len(argv) and not _FLAG.match(argv[i + 1]) else ""
            given[key.replace("-", "_")] = value if equals else following
    if "args_file" in given and os.path.isfile(given["args_file"]):
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    return given


def _merged(files: str | Sequence[str]) -> tuple[ConfigParser, list[str]]:
    """Config files, each laid over those before it, and what is wrong with the overlays."""
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
    return parser, problems


def _of_another_kind(key: str, value: Any, default: Any) -> str | None:
    """What is wrong with an override that is of another kind than what the configs have; None when nothing is."""
    text = str(value).strip()
    if isinstance(value, str) and (text == "null" or (text == "None" and default is not None)):
        return f"{key} is {text}, but MONAI passes over None; for none give --{key} '$None'."
    if text.startswith(("$", "@", "%")):
        return None
    if isinstance(default, bool):
        return None if text.lower() in ("true", "false", "") else f"{key} is '{text}', expected true or false."
    if isinstance(default, (int, float)) and re.fullmatch(r"([A-Za-z]\w*)?", text) and text != "None":
        return f"{key} is '{text}', expected a number such as {default}."
    if _is_list(default) and key not in _ALONE and re.fullmatch(r"-?[\d.]+(e-?\d+)?|", text):
        return f"{key} is {text or 'empty'}, expected a list, as in --{key} '{default}'."
    return None


def _is_list(default: Any) -> bool:
    """Whether a config has a list, or an expression of one."""
    if not isinstance(default, str) or not default.startswith("$"):
        return isinstance(default, list)
    try:
        # References are names to Python's parser.
        tree = ast.parse(
            re.sub(r"@([\w:#]+)", lambda match: "_" + re.sub(r"\W", "_", match[1]), default[1:]), mode="eval"
        )
    except SyntaxError:
        return False
    branches = [tree.body.body, tree.body.orelse] if isinstance(tree.body, ast.IfExp) else [tree.body]
    return all(isinstance(branch, ast.List) for branch in branches)


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
