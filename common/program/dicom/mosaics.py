"""Convert mosaics, images that hold all slices of a volume next to each other, by dcm2niix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ...io.images import open_image
from .series import Series


def find_converter() -> str | None:
    """The path of dcm2niix; None if it is not installed."""
    beside = os.path.dirname(sys.executable)  # of an environment that is not activated
    return shutil.which("dcm2niix") or shutil.which("dcm2niix", path=beside)


def convert_mosaics(series: Series, folder: Path) -> list[Path]:
    """Convert a series of mosaics to NIfTI, each file with a sidecar JSON that says whose it is.

    Args:
        series: its files are converted, and no others next to them.
        folder: for the files, named like the series.

    Raises:
        ValueError: when dcm2niix makes nothing of them.
    """
    converter = find_converter()
    source = folder / "mosaics"
    source.mkdir(parents=True)
    for number, file in enumerate(series.files):
        shutil.copyfile(file, source / f"{number:06d}.dcm")
    options = ["-b", "y", "-ba", "n", "-z", "n", "-w", "1", "-f", series.stem, "-o", str(folder)]
    done = subprocess.run([str(converter), *options, str(source)], capture_output=True, text=True, errors="replace")
    shutil.rmtree(source)
    files = sorted(folder.glob("*.nii"))
    if not files or any(open_image(file).shape[2] < 2 for file in files):
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ValueError(
            f"{series.files[0]}: a mosaic that dcm2niix does not split into slices ({''.join(said[-1:])}); its private "
            "tags may be gone. Export the series again, one file a slice."
        )
    return files
