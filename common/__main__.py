"""``python -m common <command>``: the commands that are no bundle's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import fire

from .command_line import RunsFailedError

# Where the function of each command is. An exported bundle has those that it needs.
COMMANDS = {
    "ablate": "ablation.ablate",
    "brisque-fit": "brisque_fit.brisque_fit",
    "compare": "compare.compare",
    "datalist": "data.write_datalist.write_datalist",
    "draw": "commands.draw.draw",
    "export": "export.bundle.export",
    "profile": "profile.profile",
    "simulate": "data.simulate.simulate",
    "training-range": "training_range.training_range",
    "unpack": "export.archive.unpack",
}


def main() -> None:
    """Run a command; an error that it expects is printed as one message, without a traceback."""
    try:
        commands = {}
        for command, place in COMMANDS.items():
            module, _, function = place.rpartition(".")
            if Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py").is_file():
                commands[command] = getattr(importlib.import_module(f".{module}", __package__), function)
        fire.Fire(commands, name=f"python -m {__package__}")
    except (ValueError, OSError, ImportError, RunsFailedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
