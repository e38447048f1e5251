"""``python -m common <command>``, or ``mri-sr <command>``: the commands that all bundles share."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import fire

from .program.cli_help import (
    find_usage_problems,
    format_help,
    order_words,
    quote_values,
    split_arguments,
    suggest,
    takes_words,
)
from .program.value_checks import find_wrong_values
from .runtime.errors import INTERRUPTED, PROGRAM, Notice, Output, format_call, format_error
from .runtime.progress import silence
from .version import __version__

# OpenMP's threads spin while they wait. This is slow next to other work. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# These read configs that name modules and files of the repository.
_OF_REPOSITORY = {"ablate", "export", "new", "profile"}


def read_summaries() -> dict[str, str]:
    """Summaries of the commands by name: the first lines of each module, which is not imported.

    An exported bundle has only the commands that it needs.
    """
    summaries = {}
    for name, path in _list_command_files().items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        summaries[name] = " ".join(first.partition("``: ")[2].replace("``", "`").split())
    return summaries


def _list_command_files() -> dict[str, Path]:
    """The module of each command, by the command's name."""
    paths = sorted(Path(__file__).parent.glob("program/commands/[a-z]*.py"))
    return {path.stem.replace("_", "-"): path for path in paths}


def get_command(name: str) -> Callable:
    """The one public function of a command's module, its own or else the one that it imports.

    Raises:
        ValueError: when there is no such command.
    """
    known = list(_list_command_files())
    if name not in known:
        meant = suggest(name, known, "") or f"; there are {', '.join(known)}."
        raise ValueError(f"there is no command '{name}'{meant}")
    module = importlib.import_module(f".program.commands.{name.replace('-', '_')}", __package__)
    public = [f for key, f in inspect.getmembers(module, inspect.isfunction) if not key.startswith("_")]
    (function,) = [f for f in public if f.__module__ == module.__name__] or public
    return function


def run_mri_sr() -> None:
    """Run ``mri-sr``, the program that an installation adds: a named command, or ``super-resolve`` without a name.

    In the repository's folder, commands that read its configs run from the repository.
    """
    sys.path.append("")  # as for python -m monai.bundle: a config may name a module in the folder where it runs
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        main(["super-resolve", "--help"], "mri-sr")
        print("\nIf a scan is named like a command, write ./NAME. The commands:\n")
        main([])
    elif words[0] in _OF_REPOSITORY and Path("common", "__main__.py").is_file():
        sys.exit(subprocess.call([sys.executable, "-m", "common", *words]))
    elif words[0] in ("--version", *_list_command_files()) or _is_misspelt(words[0]):
        main(words)
    else:
        main(["super-resolve", *words], "mri-sr")


def _is_misspelt(word: str) -> bool:
    """Whether a word is a misspelt command rather than a path."""
    return (
        re.fullmatch("[a-z]+(-[a-z]+)*", word) is not None
        and not Path(word).exists()
        and suggest(word, _list_command_files()) != ""
    )


def main(words: Sequence[str] | None = None, title: str | None = None) -> None:
    """Check the command line and run the command. An error is printed as one message.

    Args:
        words: the command's name and what follows it; default is this process's command line.
        title: how the command is called, for messages.

    Raises:
        SystemExit: with the message of an error; with status 130 when the command was interrupted.
    """
    words, with_traceback = _take_switch(sys.argv[1:] if words is None else words, "--traceback")
    try:
        with redirect_stdout(Output(sys.stdout)), warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            _run_command(words, title)
            sys.stdout.flush()
    except KeyboardInterrupt as interruption:
        print(f"\ninterrupted{interruption}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(format_error(error, with_traceback))


def _run_command(words: list[str], title: str | None) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(f"{PROGRAM} <command> [options]; {PROGRAM} <command> --help; {PROGRAM} --version. Commands:\n")
        print("\n".join(f"  {name:15} {text}" for name, text in read_summaries().items()))
        return
    if words[0] == "--version":
        versions = [f"{name} {metadata.version(name)}" for name in ("torch", "monai")]
        print(", ".join([f"mri-sr-bundles {__version__}", *versions]))
        return
    if words[0] not in _list_command_files() and Path(words[0]).exists():
        words = ["super-resolve", *words]
    name, *words = words
    title, asks_help = title or format_call(name), bool({"--help", "-h"} & {*split_arguments(words)[0]})
    if problems := [] if asks_help else find_wrong_values(name, words):
        raise ValueError("\n".join([*problems, f"{title} --help lists the options."]))
    function = get_command(name)
    if asks_help:
        print(format_help(function, title))
        return
    if name in _OF_REPOSITORY and PROGRAM == "mri-sr":
        raise ValueError(
            f"{title} reads the repository's configs, and there is no common/__main__.py in {Path.cwd()}; run it in "
            "the folder of the repository's README.md."
        )
    quiet = False
    if "quiet" not in inspect.signature(function).parameters:
        words, quiet = _take_switch(words, "--quiet", "-q")
    words = order_words(function, words)
    if problems := find_usage_problems(function, words):
        raise ValueError("\n".join([*problems, f"{title} --help lists the options."]))
    # Fire reads values as Python literals. Text arguments stay text, for example a folder named 2024.
    texts = {
        p.name: (lambda word: tuple(word.split(","))) if takes_words(p) else str
        for p in inspect.signature(function).parameters.values()
        if p.annotation in ("str", "str | None") or takes_words(p)
    }
    parsed = fire.decorators.SetParseFns(**texts)(fire.decorators.SetParseFn(_read_value)(function))
    with silence(quiet):
        fire.Fire(parsed, command=quote_values(function, words), name=title)


def _show_warning(others: Callable, message: Warning | str, category: type[Warning], *args: object) -> None:
    """Print a warning to a user as one line, others as they were printed before."""
    if issubclass(category, UserWarning):
        print(f"{'notice' if issubclass(category, Notice) else 'warning'}: {message}", file=sys.stderr)
    else:
        others(message, category, *args)


def _read_value(word: str) -> Any:
    """Read a value as Fire does, and also true and false in any case."""
    return word.lower() == "true" if word.lower() in ("true", "false") else fire.parser.DefaultParseValue(word)


def _take_switch(words: Sequence[str], *names: str) -> tuple[list[str], bool]:
    """Take a switch that all commands have out of a command line; return the rest and whether it is set."""
    before, _ = split_arguments(words)
    left = [part for word in before for part in (word.split("=", 1) if word.split("=")[0] in names else [word])]
    value = "false"
    while found := [word for word in left if word in names]:
        at = left.index(found[0])
        has_value = left[at + 1 : at + 2] and left[at + 1].lower() in ("true", "false")
        value = left.pop(at + 1) if has_value else "true"
        del left[at]
    return [*left, *words[len(before) :]], value.lower() == "true"


if __name__ == "__main__":
    main()
