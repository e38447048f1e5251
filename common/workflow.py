"""Running parts of a bundle's configuration again, with other values."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser


def running_parser() -> ConfigParser | None:
    """The parser that evaluates the expression which called this; None when no configuration is being run.

    MONAI gives an expression no name for it, so it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


def run_again(run_id: str, **override: Any) -> Any:
    """Evaluate an entry of the configuration that is being run, with some of its keys set to other values.

    It is for expressions of a config: ``"run": ["$[run_again('train_stage', stage=k) for k in (1, 2, 3)]"]`` trains a
    method's stages in turn. Everything that depends on the changed keys is built anew, with the overlays and overrides
    of the run in place; ``initialize`` has been run once and is not run again.

    Args:
        run_id: key of the entry, a list of expressions such as ``run``.
        override: values by key.

    Returns:
        The entry's value.

    Raises:
        RuntimeError: when no configuration is being run.
        KeyError: when the configuration lacks a key.
    """
    running = running_parser()
    if running is None:
        raise RuntimeError("run_again: no configuration is being run; it is called in an expression of a config.")
    parser = ConfigParser(copy.deepcopy(running.config))
    for key in (run_id, *override):
        if key not in parser:
            raise KeyError(f"run_again: the configuration has no key '{key}'.")
    parser.update(override)
    return parser.get_parsed_content(run_id)


def check_stages(stages: int | Sequence[int], cascade: int, most: int | None = None) -> list[int]:
    """The stages of a cascade, or of a method, that are to be trained, in order; one may be given as a number.

    Args:
        stages: numbers from 1 on.
        cascade: how many stages there are.
        most: how many it may have in this form of the method; None for any number.

    Raises:
        ValueError: when there are none, or one that the cascade does not have, or the cascade has too many.
    """
    if most is not None and cascade > most:
        raise ValueError(f"cascade is {cascade}, expected at most {most} in this form of the method.")
    chosen = [stages] if isinstance(stages, int) else list(stages)
    if not chosen or any(stage not in range(1, cascade + 1) for stage in chosen):
        raise ValueError(
            f'stages is {stages}, expected some of {list(range(1, cascade + 1))}, for example --stages "[{cascade}]".'
        )
    return sorted(set(chosen))


def parts_of(entries: Sequence[Any], most: int) -> list[int]:
    """Numbers, from 1 on, of the parts into which entries are divided so that each has at most so many.

    Raises:
        ValueError: when ``most`` is less than 1.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"batch_volumes is {most!r}, expected a whole number, 1 or more.")
    return list(range(1, math.ceil(len(entries) / most) + 1))


def numbered_from(pattern: str, first: int) -> list[str]:
    """Files that exist under ``pattern % number``, from a number on; none is passed over."""
    folder, name = Path(pattern).parent, Path(pattern).name
    before, after = name.split("%d")
    found = []
    for path in sorted(folder.glob(f"{before}*{after}")):
        number = path.name[len(before) : len(path.name) - len(after)]
        if number.isdigit() and int(number) >= first:
            found.append(str(path))
    return found
