"""What the measure of ``exams_left_out`` says of exams where simulation holds: three thick stacks of each HR head.

    python -m common.lab.queue.exams_simulated --hr FILES --output_dir OUT

Two stacks are transverse, half a slice apart, one is coronal. Slices are four HR voxels apart, of a Gaussian profile,
with 1 % noise. Nothing moves. exams_simulated.csv beside this file gets the rows, exams_simulated_over_cubic.csv the
means over people.
"""

import argparse
import json
from pathlib import Path

import nibabel as nib

from ...io.images import open_image
from ...io.naming import make_case_stem
from ...program.degraded import degrade_scan
from .exams_left_out import NETWORKS, judge_stacks

_STACKS = {"tra": ("SI", 0), "cor": ("AP", 0), "tra_2": ("SI", 2)}  # the axis across the slices, HR voxels left out


def write_exam(hr: Path, folder: Path) -> None:
    """Simulate the stacks of one head, each with noise of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.as_closest_canonical(nib.squeeze_image(open_image(hr)))
    for seed, (name, (axis, first)) in enumerate(_STACKS.items()):
        nib.save(image.slicer[:, :, first:], whole := folder / "hr.nii.gz")
        degrade_scan(str(whole), folder / f"{name}.nii.gz", (1, 1, 4), noise=0.01, seed=seed, slice_axis=axis)
    whole.unlink()
    exam = {"person": folder.name, "body": "head", "stacks": _STACKS}
    (folder / "exam.json").write_text(json.dumps(exam), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", required=True, nargs="+", type=Path, help="one file of each person")
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    exams = [options.output_dir / "exams" / make_case_stem(file) for file in options.hr]
    for file, exam in zip(options.hr, exams, strict=True):
        write_exam(file, exam)
    table = Path(__file__).with_suffix(".csv")
    means = table.with_name("exams_simulated_over_cubic.csv")
    networks = {name: NETWORKS[name] for name in ("ct_guided", "fine_tuned")}
    judge_stacks(exams, options.output_dir, table, means, networks, together=False)


if __name__ == "__main__":
    main()
