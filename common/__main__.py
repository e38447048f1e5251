"""``python -m common <command>``: the commands that are no bundle's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import fire

from .command_line import RunsFailedError


def commands() -> dict[str, Callable]:
    """Each module of :mod:`common.commands` by its command's name; an exported bundle has those that it needs."""
    found = {}
    for path in sorted(Path(__file__).with_name("commands").glob("[a-z]*.py")):
        module = importlib.import_module(f".commands.{path.stem}", __package__)
        public = [f for name, f in inspect.getmembers(module, inspect.isfunction) if not name.startswith("_")]
        (function,) = [f for f in public if f.__module__ == module.__name__]
        found[path.stem.replace("_", "-")] = function
    return found


def main() -> None:
    """Run a command; an error that it expects is printed as one message, without a traceback."""
    try:
        fire.Fire(commands(), name=f"python -m {__package__}")
    except (ValueError, OSError, ImportError, RunsFailedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
