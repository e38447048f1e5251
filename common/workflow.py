"""Running parts of a bundle's configuration again, with other values."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .override_checks import running_parser
from .values import is_true


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


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with this message unless the condition holds: for ``initialize`` of a config or an overlay."""
    if not condition:
        raise ValueError(message)


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


def check_new_run(
    output_dir: str | os.PathLike,
    ckpt_dir: str | os.PathLike,
    resume: bool | str,
    overwrite: bool | str,
    initial: str | None = None,
    suffixes: Sequence[str] = ("",),
    weights: bool = True,
) -> None:
    """Refuse to begin a training where another one, or weights, would be lost; and one whose first weights are missing.

    It stands in a config's ``initialize``, before anything is computed, and before the processes of a distributed run
    join: so none of them sees what another has begun to write.

    Args:
        output_dir: folder of the histories.
        ckpt_dir: folder of weights and states.
        resume: whether the run goes on from a state, and begins anew where there is none.
        overwrite: whether the run may take the place of what is there.
        initial: file of the weights that it starts from, or None.
        suffixes: of the trainings that it runs, as in ``history_2.jsonl`` and ``training_state_2.pt``; patterns.
        weights: whether the run begins model.pt anew, rather than from what an earlier stage has left there.

    Raises:
        FileExistsError: when a folder holds another run, or weights that belong to none.
        FileNotFoundError: when there is no file ``initial``.
        ValueError: when both ``resume`` and ``overwrite`` are true.
    """
    resume, overwrite = is_true(resume), is_true(overwrite)
    if resume and overwrite:
        raise ValueError("resume and overwrite are both true; a run is continued or begun anew, so give one of them.")
    if initial is not None and not Path(initial).is_file():
        raise FileNotFoundError(f"there are no weights at {initial}; name a file with --initial PATH.")
    run = [path for suffix in suffixes for path in sorted(Path(output_dir).glob(f"history{suffix}.jsonl"))]
    run += [path for suffix in suffixes for path in sorted(Path(ckpt_dir).glob(f"training_state{suffix}.pt"))]
    model = [path for path in [Path(ckpt_dir, "model.pt")] if weights and path.is_file()]
    if overwrite or (resume and run) or not (run or model):
        return
    if resume:
        raise FileExistsError(
            f"{ckpt_dir} holds {model[0].name}, but no run that --resume true could continue, and this run would take "
            "its place. Name another --output_dir or --ckpt_dir, or give --overwrite true."
        )
    folders = " and ".join(dict.fromkeys(str(path.parent) for path in run + model))
    raise FileExistsError(
        f"{folders}: there is another run ({', '.join(path.name for path in run + model)}). Continue it with --resume "
        "true, name another --output_dir, or let this one take its place with --overwrite true."
    )


def first_file(*paths: str) -> str:
    """The first of the paths at which there is a file; the last where there is at none."""
    return next((path for path in paths if Path(path).is_file()), paths[-1])


def file_or_none(path: str) -> str | None:
    """The path where there is a file at it, else None: of weights that a method can do without."""
    return path if Path(path).is_file() else None
