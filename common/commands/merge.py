"""``python -m common merge``: writes the table of rows that ``ablate --row`` has run one by one."""

from __future__ import annotations

from ..errors import RunsFailedError
from ..tables.merged import merge_finished_rows


def merge_results(output_dir: str, against: str | None = None) -> None:
    """Merge the results of a table's rows, as ``ablate`` does at its end, and print the table.

    A row with an unfinished run is left out, and named at the end.

    Args:
        output_dir: folder of the table: the output_dir of the ``ablate`` commands.
        against: as for ``ablate``.

    Raises:
        FileNotFoundError: when no ``ablate`` has written to the folder.
        RunsFailedError: at the end, when runs are not done.
    """
    if missing := merge_finished_rows(output_dir, against):
        listing = "\n  ".join(missing)
        raise RunsFailedError(
            f"not done, so that their rows are left out:\n  {listing}\nSee the log.txt of each folder that has one. "
            "ablate --resume True, with --row or without, runs what is missing."
        )
