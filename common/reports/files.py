"""Write reports whole or not at all."""

from __future__ import annotations

import os

from matplotlib.figure import Figure

from ..io.files import replacing


def escape(name: str) -> str:
    """The text that a figure shows as this name of a file: matplotlib reads what stands between two $ as a formula."""
    return name.encode(errors="backslashreplace").decode().replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG.

    The reports build ``Figure`` objects without pyplot, so that no display is needed and no figure stays open.

    Args:
        figure: the figure.
        path: the PNG to write.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
