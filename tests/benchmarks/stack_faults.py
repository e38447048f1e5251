"""What a faulty stack costs three stacks of a head that are combined, and what the run says about it.

    python -m tests.benchmarks.stack_faults --heads HEAD.nii.gz,HEAD.nii.gz --output_dir O

Each head becomes cubes of ``--voxel`` mm, and then three thick stacks, as by ``tests.benchmarks.stacks``. One of them
gets a fault; the next head in the list is the other person. ``faults.csv`` has a line for each head and fault: the
PSNR, and its difference from that of the same stacks without the fault, or for another person from that of the two
stacks without that one; and the lines of the log and the entries of the JSON that the run without a fault has not.

Results that are there are used again: to compute those of a new version, remove the folders ``together`` in O.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_to_output, smooth_image

from common.stacks import make_rigid_matrix

from .exam_measures import Volume
from .real_exams import super_resolve
from .stacks import heads, thick

FAULTS = ("one slice black", "one slice doubled", "odd slices turned", "another person", "shaded", "turned")
ODD, WHOLE = 4.0, 15.0  # degrees
AXIS = np.array([0.6, 0.48, 0.64])  # of turns, of length 1; no axis of a stack
SHADE = 3.0  # brightest part over darkest part
NOISY = re.compile(
    r"% done| -> |^results go|^networks compute|^training|seconds|more;"
)  # lines that differ in every run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", required=True, help="two or more files, with commas between")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--faulty", type=int, default=1, choices=(0, 1, 2), help="which stack gets the fault")
    parser.add_argument("--voxel", type=float, default=1.6, help="of the heads in mm")
    parser.add_argument("--thickness", type=int, default=4, help="of the slices in voxels")
    parser.add_argument("--noise", type=float, default=0.0, help="Rician, of the brightest tissue")
    parser.add_argument("--together_options", default="", help='more options of mri-sr, such as "--spacing 2"')
    options = parser.parse_args()
    if unknown := set(options.faults.split(",")) - set(FAULTS):
        parser.error(f"--faults has {', '.join(sorted(unknown))}, expected some of {', '.join(FAULTS)}")
    files = options.heads.split(",")
    if len(files) < 2:
        parser.error("--heads has one file, expected at least two: one is the other person")
    rows = []
    for file, other in zip(files, [*files[1:], files[0]], strict=True):
        rows += measure(Path(file), Path(other), options)
        with Path(options.output_dir, "faults.csv").open("w", newline="") as table:
            writer = csv.DictWriter(table, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def measure(file: Path, other: Path, options: argparse.Namespace) -> list[dict]:
    """The rows of one head."""
    folder = Path(options.output_dir, file.name.removesuffix(".gz").removesuffix(".nii"))
    (hr,), affine = heads([shrink(file, folder / file.name, options.voxel)], options.thickness)
    points = np.indices(hr.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    (others,), place = heads([shrink(other, folder / other.name, options.voxel)], options.thickness)
    another = Volume(others, place)  # with air around, so that its edge has only air
    someone = another.sample(points).reshape(hr.shape)
    which = options.faulty
    rng = np.random.default_rng(0)

    def make(name: str, i: int, head: np.ndarray = hr, degrees: float = 0.0) -> Path:
        path = folder / name / f"stack_{i}.nii.gz"
        motion = make_rigid_matrix(np.array([0, 0, 0, *(degrees * AXIS)]), np.zeros(3))
        return Path(thick(head, affine, i, motion, path, options, rng))

    def combine(name: str, stacks: list[Path]) -> dict:
        extra = ["--together", "--keep_paths", *shlex.split(options.together_options)]
        found = super_resolve(stacks, folder / name / "together", extra)
        log = (folder / name / "together" / "log.txt").read_text()
        for place in (folder / name, folder / "whole"):
            log = log.replace(f"{place}/", "").replace(f"{place.name}/", "")
        found["lines"] = [line for line in log.splitlines() if not NOISY.search(line)]
        found["report"] = {}
        if found["file"]:
            volume = Volume.read(found["file"])
            psnr = -10 * np.log10(np.mean((np.clip(volume.sample(points) / 1000, 0, 1) - hr.ravel()) ** 2))
            said = json.loads(Path(str(found["file"]).replace(".nii.gz", ".json")).read_text())["SuperResolution"]
            found |= {"psnr": float(psnr), "report": {Path(k).parent.name: v for k, v in said["Adapted"].items()}}
        return found

    whole = [make("whole", i) for i in range(3)]
    references = {"whole": combine("whole", whole), "without": combine("without", whole[:which] + whole[which + 1 :])}
    rows = []
    for fault in options.faults.split(","):
        faulty = make_faulty(fault, make, which, someone)
        found = combine(fault, [*whole[:which], faulty, *whole[which + 1 :]])
        reference = references["without" if fault == "another person" else "whole"]
        known = {re.sub("[0-9.]+", "#", line) for line in references["whole"]["lines"]}
        said = [line for line in found["lines"] if re.sub("[0-9.]+", "#", line) not in known]
        row = {"head": folder.name, "fault": fault, "psnr": "refused", "reference": "refused", "difference": ""}
        if "psnr" in reference:
            row["reference"] = f"{reference['psnr']:.2f}"
        if "psnr" in found:
            row["psnr"] = f"{found['psnr']:.2f}"
        if "psnr" in found and "psnr" in reference:
            row["difference"] = f"{found['psnr'] - reference['psnr']:+.2f}"
        row |= {"said": "; ".join(said), "report": json.dumps(found["report"].get(fault, {}))}
        print(", ".join(row.values()), flush=True)
        rows.append(row)
    return rows


def make_faulty(fault: str, make, which: int, someone: np.ndarray) -> Path:
    """The file of a stack with a fault; ``make`` makes one by its folder, number, head and turn in degrees."""
    if fault == "another person":
        return make(fault, which, someone)
    if fault == "turned":
        return make(fault, which, degrees=WHOLE)
    path = make(fault, which)
    image = nib.load(path)
    voxels = image.get_fdata(dtype=np.float32)
    middle = voxels.shape[2] // 2
    if fault == "one slice black":
        voxels[..., middle] = 0
    elif fault == "one slice doubled":
        voxels[..., middle] = voxels[..., middle + 1]
    elif fault == "odd slices turned":
        voxels[..., 1::2] = nib.load(make(f"{fault} by {ODD:g}", which, degrees=ODD)).get_fdata()[..., 1::2]
    else:
        voxels *= (SHADE ** -np.linspace(0, 1, len(voxels)))[:, None, None]
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    return path


def shrink(file: Path, path: Path, voxel: float) -> str:
    """A file of a head with cubes of an edge in mm."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.squeeze_image(nib.load(file))
        image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine)
        wide = np.sqrt(np.maximum(voxel**2 - voxel_sizes(image.affine) ** 2, 0))
        nib.save(resample_to_output(smooth_image(image, wide), 3 * [voxel]), path)
    return str(path)


if __name__ == "__main__":
    main()
