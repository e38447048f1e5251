"""``python -m common overview``: tables of ``ablate`` side by side, what each method gains and what it costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunsFailedError
from ..reports.overview import quality_against_time, write_overview
from ..tables.overview import overview_of


def overview(tables: str | Sequence[str], output_dir: str) -> None:
    """Print the methods of several tables side by side, and draw what they gain over the time that they take.

    Writes ``overview.csv``, a line a method and table with PSNR, SSIM, LPIPS, cubic interpolation of the method's own
    input, displacement, parameters of the network that inference runs, seconds and iterations of the training, seconds
    to infer a case, whether it trained anything and what it knew; and ``overview.png``, gain in PSNR against time. A
    row of which a run is not done is left out, and named at the end.
    What was evaluated with the weights of another row or, by ``--trained``, of another table has the training of those.

    Args:
        tables: folders of tables, the output_dir of ``ablate``, with commas between; each is called by its last part.
        output_dir: folder to write to.

    Raises:
        FileNotFoundError: when no ``ablate`` has written to a folder.
        ValueError: when two folders end alike, nothing is done, or PSNR and SSIM are not on one scale in all.
        RunsFailedError: at the end, when runs are not done.
    """
    folders = [
        Path(os.path.abspath(name.strip())) for name in (tables.split(",") if isinstance(tables, str) else tables)
    ]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"--tables {','.join(map(str, folders))}: two folders end alike, and tables are called so.")
    rows, missing = overview_of(folders)
    if not rows:
        raise ValueError(f"{', '.join(map(str, folders))}: no row is done.")
    print(write_overview(output_dir, rows))
    quality_against_time(Path(output_dir) / "overview.png", rows)
    print(f"overview.csv and overview.png are in {output_dir}")
    if missing:
        listing = "\n  ".join(missing)
        raise RunsFailedError(f"not done, so that their rows are left out:\n  {listing}")
