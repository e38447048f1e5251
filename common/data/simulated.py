"""Simulated scans for runs without data. An exported bundle cannot make them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..io.naming import SIMULATED


def import_simulation() -> ModuleType:
    """The module that makes simulated scans, :mod:`common.data.simulation.cohort`."""
    try:
        from .simulation import cohort
    except ModuleNotFoundError as error:
        if not str(error.name).endswith("simulation"):
            raise
        raise ValueError(
            "no --dataset_dir is given, expected your data: simulated heads come with the whole collection only. "
            "Give --dataset_dir DIR."
        ) from None
    return cohort


def lacks_simulation() -> bool:
    """Whether this is an exported bundle, which cannot make scans."""
    return find_spec(".simulation", __package__) is None


class NoCases(list):
    """The cases of an exported bundle without a folder, so that MONAI's checks can build it; a run says what lacks."""

    def __iter__(self) -> Iterator:
        import_simulation()
        return super().__iter__()


def is_simulated(dataset_dir: str) -> bool:
    """Whether a folder holds a simulated cohort."""
    return Path(dataset_dir, SIMULATED).is_file()
