"""``python -m common <command>``: the commands that are no bundle's own."""

from __future__ import annotations

import sys

import fire

from .ablation import RunsFailedError, ablate
from .brisque_fit import brisque_fit
from .data.simulate import simulate
from .data.write_datalist import write_datalist
from .profile import profile


def main() -> None:
    """Run a command; an error that it expects is printed as one message, without a traceback."""
    try:
        commands = {
            "ablate": ablate,
            "brisque-fit": brisque_fit,
            "datalist": write_datalist,
            "profile": profile,
            "simulate": simulate,
        }
        fire.Fire(commands, name="python -m common")
    except (ValueError, OSError, ImportError, RunsFailedError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
