"""``python -m common overview``: show tables of ``ablate`` side by side, with each method's gain and cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunsFailedError
from ..reports.overview import quality_against_time, tables_in, write_overview
from ..tables.overview import overview_of


def overview(tables: str | Sequence[str], output_dir: str) -> None:
    """Print the methods of several tables side by side, and draw their gain against their time.

    Writes ``overview.csv``, one line for each method and table. Its columns are PSNR, SSIM, LPIPS, cubic interpolation
    of the method's own input, displacement, parameters of the network in inference, seconds and iterations of the
    training, seconds of inference for a case, whether anything was trained, and what the training knew. Writes
    ``overview.png``, the gain in PSNR against time. A row with an unfinished run is left out, and named at the end.
    Rows with the weights of another row, or by ``--trained`` of another table, have the training cost of those weights.

    Args:
        tables: folders of tables, the output_dir of ``ablate``, separated by commas; the last part names a table.
        output_dir: folder to write to.

    Raises:
        FileNotFoundError: when no ``ablate`` has written to a folder.
        FileExistsError: when ``output_dir`` has an overview of other tables.
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
    if others := tables_in(output_dir) - set(names):
        raise FileExistsError(
            f"{output_dir} has an overview of other tables, {', '.join(sorted(others))}; name another folder."
        )
    print(write_overview(output_dir, rows))
    quality_against_time(Path(output_dir) / "overview.png", rows)
    print(f"overview.csv and overview.png are in {output_dir}")
    if missing:
        listing = "\n  ".join(missing)
        raise RunsFailedError(f"not done, so that their rows are left out:\n  {listing}")
