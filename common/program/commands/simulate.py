"""``python -m common simulate``: write a cohort of simulated heads and bodies, T1w, T2w, CT and random contrasts."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from ...data.simulation.subjects import simulate_subjects
from ..pages.middle_slices import draw_middle_slices

_DRAWN = 32


@wraps(simulate_subjects, assigned=("__doc__",))
def simulate(output_dir: str, *args: Any, **settings: Any) -> None:
    simulate_subjects(output_dir, *args, **settings)
    files = sorted(Path(output_dir).glob("sub-*/*.nii.gz"))
    picture = Path(output_dir, "simulated.png")
    drawn = dict.fromkeys(np.linspace(0, len(files) - 1, _DRAWN).round().astype(int))
    draw_middle_slices(picture, [files[number] for number in drawn])
    print(f"{picture} shows them")
