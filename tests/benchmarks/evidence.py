"""Degrade HR volumes of several people, super-resolve them, and write the table that ``judge --cases`` reads.

    python -m tests.benchmarks.evidence --hr A.nii.gz,B.nii.gz --scale 2,2,2 --output_dir O
    python -m common judge --cases O/cases.csv --anatomy --output_dir O/judged

Factors along all axes truncate k-space; a factor along the last axis alone is a Gaussian slice profile. HR is cropped
to its foreground, with its axes as R, A and S. Noise is Rician, ``--noise`` of the 99.9th percentile. Each file is one
person. Results that are there are used again.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from common.degradations import make_acquisition
from common.io.images import open_image
from common.io.naming import make_case_stem
from common.io.read import read_volume
from common.program.commands.super_resolve import super_resolve
from common.program.degraded import save_degraded

_MARGIN = 8  # voxels of air around the foreground
_FOREGROUND = 0.05  # of the 99.9th percentile
_FILES = {"results": "results/{}_sr", "scan": "scans/{}", "hr": "hr/{}", "interval": "results/{}_interval"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", required=True, help="files, with commas between")
    parser.add_argument("--scale", required=True, help="2,2,2 or 1,1,4")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--noise", type=float, default=0.01)
    arguments = parser.parse_args()
    factors = [int(factor) for factor in arguments.scale.split(",")]
    output_dir = Path(arguments.output_dir)
    for folder in ("hr", "scans"):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, file in enumerate(arguments.hr.split(",")):
        name = make_case_stem(file)
        hr, scan = (output_dir / folder / f"{name}.nii.gz" for folder in ("hr", "scans"))
        if not scan.exists():
            write_pair(file, factors, arguments.noise, number, hr, scan)
        rows.append([name, *(f"{file.format(name)}.nii.gz" for file in _FILES.values())])
    options = {"output_dir": str(output_dir / "results"), "skip_existing": True, "scale": factors, "uncertainty": True}
    super_resolve(str(output_dir / "scans"), **options)
    with (output_dir / "cases.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["person", *_FILES], *rows])


def write_pair(file: str, factors: list[int], noise: float, seed: int, hr: Path, scan: Path) -> None:
    """Write HR, cropped, and its degraded scan."""
    image = nib.as_closest_canonical(nib.squeeze_image(open_image(file)))
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    top = float(np.quantile(voxels, 0.999))
    found = np.argwhere(voxels > _FOREGROUND * top)
    first = np.maximum(found.min(0) - _MARGIN, 0)
    size = np.minimum(found.max(0) + 1 + _MARGIN, voxels.shape) - first
    size -= size % factors
    part = tuple(slice(low, low + n) for low, n in zip(first, size, strict=True))
    cropped = nib.Nifti1Image(
        np.ascontiguousarray(voxels[part]), image.affine @ nib.affines.from_matvec(np.eye(3), first)
    )
    nib.save(cropped, hr)
    save_degraded(read_volume(hr), make_acquisition(factors, sigma=noise * top, seed=seed), scan)


if __name__ == "__main__":
    main()
