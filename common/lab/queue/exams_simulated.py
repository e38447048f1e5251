"""What the measure of ``exams_left_out`` says of exams where simulation holds: three thick stacks of each HR head.

    python -m common.lab.queue.exams_simulated --hr FILES --output_dir OUT
    python -m common.lab.queue.exams_simulated --hr FILES --output_dir OUT --moved

Two stacks are transverse, half a slice apart, one is coronal. Slices are four HR voxels apart, of a Gaussian profile,
with 1 % noise. Nothing moves; with --moved the first stack is deformed, as if organs had moved between the stacks.
exams_simulated.csv or exams_moved.csv beside this file gets the rows, exams_simulated_over_cubic.csv or
exams_moved_over_cubic.csv the means over people.
"""

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import gaussian_filter, map_coordinates

from ...io.images import open_image
from ...io.naming import make_case_stem
from ...program.degraded import degrade_scan
from .exams_left_out import NETWORKS, judge_stacks

# mm: standard deviations of a deformation along each axis, and of the Gaussian that makes it smooth.
_MOVED, _SMOOTH = 1.5, 15
_STACKS = {"tra": ("SI", 0), "cor": ("AP", 0), "tra_2": ("SI", 2)}  # the axis across the slices, HR voxels left out


def deform(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Displace an image's voxels at random and smoothly."""
    spacing, random = voxel_sizes(image.affine), np.random.default_rng(0)
    at = np.indices(image.shape, dtype=np.float32)
    for axis, size in enumerate(spacing):
        field = gaussian_filter(random.standard_normal(image.shape), _SMOOTH / spacing)
        at[axis] += _MOVED / size * field / field.std()
    voxels = map_coordinates(image.get_fdata(dtype=np.float32), at, order=3, mode="nearest")
    return nib.Nifti1Image(voxels, image.affine)


def write_exam(hr: Path, folder: Path, moved: bool = False) -> None:
    """Simulate the stacks of one head, each with noise of its own, the first deformed if ``moved``."""
    image = nib.as_closest_canonical(nib.squeeze_image(open_image(hr)))
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (axis, first)) in enumerate(_STACKS.items()):
        shown = deform(image) if moved and seed == 0 else image
        nib.save(shown.slicer[:, :, first:], whole := folder / "hr.nii.gz")
        degrade_scan(str(whole), folder / f"{name}.nii.gz", (1, 1, 4), noise=0.01, seed=seed, slice_axis=axis)
    whole.unlink()
    exam = {"person": folder.name, "body": "head", "stacks": _STACKS}
    (folder / "exam.json").write_text(json.dumps(exam), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", required=True, nargs="+", type=Path, help="one file of each person")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--moved", action="store_true", help="deform the first stack")
    options = parser.parse_args()
    if missing := [str(file) for file in options.hr if not file.exists()]:
        parser.error(f"--hr: there is no {', '.join(missing)}")
    kind = "moved" if options.moved else "simulated"
    output_dir = options.output_dir / kind
    exams = [output_dir / "exams" / make_case_stem(file) for file in options.hr]
    for file, exam in zip(options.hr, exams, strict=True):
        write_exam(file, exam, options.moved)
    table, means = (Path(__file__).with_name(f"exams_{kind}{end}.csv") for end in ("", "_over_cubic"))
    networks = {name: NETWORKS[name] for name in ("ct_guided", "fine_tuned")}
    judge_stacks(exams, output_dir, table, means, networks, together=False)


if __name__ == "__main__":
    main()
