"""How well each method predicts a stack of a real exam that was left out, and whether slices show as bands.

    python -m tests.benchmarks.real_exams --exams EXAM,EXAM --output_dir O
    python -m tests.benchmarks.real_exams --exams FETUS --output_dir O --known run1,run3,run5 --left_out run2,run4,run6

An exam is a folder of stacks of one contrast: NIfTI files, or a folder of DICOM files for each. Of a stack ``run1``,
``mask1`` in the folder is the region that is compared. Each stack is left out once. The others predict it: each alone,
the mean of their cubic interpolations, and all together. Then all stacks are put together.

``real_exams.csv`` has a line for each volume and left-out stack: that of ``judge --left_out``.
``bands.csv`` has the power of the volumes where slices of another stack would show, over that of the stack that is
fine in this plane, and the same beside; see :meth:`.exam_measures.MeasuredStack.measure_bands`. There are no bands if
``thin`` is at most 1.1 times ``thin_beside``. A picture shows each case.

Results that are there are used again: to compute those of a method anew, remove its folder in O.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from nibabel.affines import voxel_sizes

from common.commands.judge import judge
from common.degradations import GaussianProfile
from common.evidence import Person
from common.evidence import Volume as JudgedVolume
from common.evidence.left_out import cut_to_data, make_stack, read_thickness
from common.io.dicom import choose_stack, find_series, write_nifti
from common.metrics import interpolate_cubic
from common.stacks import LeftOutStack

from .exam_measures import MeasuredStack, Volume

METHODS = ("cubic", "mean", "ct_guided", "smore", "together")
ALL = "none"  # left out
ROOT = Path(__file__).parents[2]
KEY = ("exam", "known", "left_out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", required=True, help="folders, with commas between")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--known", default="", help="the stacks that predict, the best first; default all others")
    parser.add_argument("--left_out", default="", help=f"the stacks that are predicted; default each, and {ALL}")
    parser.add_argument("--together_options", default="", help='more options of mri-sr, such as "--spacing 2"')
    options = parser.parse_args()
    output_dir = Path(options.output_dir)
    methods = options.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"--methods has {', '.join(sorted(unknown))}, expected some of {', '.join(METHODS)}")
    for exam in map(Path, options.exams.split(",")):
        folder = output_dir / exam.name
        stacks = find_stacks(exam, folder)
        for left_out in filter(None, (options.left_out or ",".join([*stacks, ALL])).split(",")):
            known = [name for name in options.known.split(",") if name] or list(stacks)
            known = [name for name in known if name != left_out]
            if missing := {*known, left_out} - {*stacks, ALL}:
                parser.error(f"{exam} has the stacks {', '.join(stacks)}, expected also {', '.join(sorted(missing))}")
            used = methods if left_out != ALL else [m for m in methods if m == "together"]
            made = make_volumes(used, {name: stacks[name] for name in known}, folder, options.together_options)
            case = dict(zip(KEY, (exam.name, " ".join(known), left_out), strict=True))
            measure(case, made, exam, stacks, output_dir)


def find_stacks(exam: Path, folder: Path) -> dict[str, Path]:
    """The NIfTI files of an exam's stacks by name, the largest first; DICOM series are converted into a folder."""
    stacks = {}
    for path in sorted(exam.iterdir()):
        if path.is_dir():
            file = folder / "stacks" / f"{path.name}.nii.gz"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_nifti(choose_stack(find_series(path), path), file)
            stacks[path.name] = file
        elif path.name.endswith(".nii.gz") and not path.name.startswith("mask"):
            spacing = voxel_sizes(nib.load(path).affine)
            if spacing.max() > 1.5 * spacing.min():
                stacks[path.name.removesuffix(".nii.gz")] = path
    return dict(sorted(stacks.items(), key=lambda item: -np.prod(nib.load(item[1]).shape[:3], dtype=float)))


def find_mask(exam: Path, stack: str) -> Path | None:
    """The mask of a stack of an exam, if it has one."""
    path = exam / f"{re.sub('[^0-9]*', 'mask', stack, count=1)}.nii.gz"
    return path if path.exists() else None


def make_volumes(methods: list[str], stacks: dict[str, Path], folder: Path, options: str) -> dict[str, dict]:
    """The volumes of the methods by row, each with its ``file``, ``seconds`` and what was ``said``."""
    made = {}
    for method in methods:
        if method == "together":
            place = folder / method / "_".join(stacks)
            made[method] = super_resolve([*stacks.values()], place, ["--together", *shlex.split(options)])
        elif method == "mean":
            file = folder / method / ("_".join(stacks) + ".nii.gz")
            if not file.exists():
                save(average([interpolate(Volume.read(path)) for path in stacks.values()]), file)
            made[method] = {"file": file}
        else:
            for name, path in stacks.items():
                if method == "cubic":
                    file = folder / method / f"{name}.nii.gz"
                    if not file.exists():
                        save(interpolate(Volume.read(path)), file)
                    made[f"{method}, {name}"] = {"file": file}
                else:
                    made[f"{method}, {name}"] = super_resolve([path], folder / method / name, ["--bundle", method])
    return made


def super_resolve(scans: list[Path], place: Path, options: list[str]) -> dict:
    """Run ``mri-sr``, unless its result is there; its messages go into ``log.txt`` next to the result."""
    place.mkdir(parents=True, exist_ok=True)
    log = place / "log.txt"
    if not list(place.glob("*_sr.nii.gz")):
        command = [sys.executable, "-m", "common", "super-resolve", *map(str, scans), "--output_dir", str(place)]
        with log.open("w") as out:
            subprocess.run([*command, *options], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False)
    found = list(place.glob("*_sr.nii.gz"))
    said = [line for line in log.read_text().splitlines() if re.search("left out|error|no other stack", line)]
    if not found:
        return {"file": None, "said": said[0] if said else f"see {log.name}"}
    report = json.loads(Path(str(found[0]).replace(".nii.gz", ".json")).read_text())["SuperResolution"]
    return {"file": found[0], "seconds": report["Seconds"], "said": "; ".join(said)}


def interpolate(stack: Volume) -> Volume:
    """A stack with slices about as thin as its pixels, by a cubic spline."""
    spacing = voxel_sizes(stack.affine)
    degradation = GaussianProfile(tuple(max(1, round(each / spacing.min())) for each in spacing))
    voxels = interpolate_cubic(stack.voxels, degradation.factors, degradation.offset)
    return Volume(voxels, degradation.compute_hr_affine(stack.affine))


def average(volumes: list[Volume]) -> Volume:
    """The mean of volumes where they lie, on the grid of the first, each over its own field of view."""
    first = volumes[0]
    total, count = np.zeros(first.voxels.shape, np.float32), np.zeros(first.voxels.shape, np.float32)
    for plane in range(total.shape[2]):
        index = np.indices((*total.shape[:2], 1)).reshape(3, -1).T + np.array([0, 0, plane])
        points = index @ first.affine[:3, :3].T + first.affine[:3, 3]
        for volume in volumes:
            inside = volume.locate(points)[1].reshape(total.shape[:2])
            total[..., plane] += volume.sample(points).reshape(inside.shape) * inside
            count[..., plane] += inside
    return Volume(total / count.clip(1), first.affine)


def save(volume: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume.voxels.astype(np.float32), volume.affine), path)


def measure(case: dict[str, str], made: dict[str, dict], exam: Path, stacks: dict[str, Path], output_dir: Path) -> None:
    """Measure the volumes of a case, and add them to the tables and pictures."""
    volumes = {row: Volume.read(result["file"]) for row, result in made.items() if result["file"]}
    known = case["known"].split()
    measured = {name: MeasuredStack(stacks[name], find_mask(exam, name)) for name in stacks}
    rows = [{**case, "row": row} for row in volumes]
    if case["left_out"] != ALL:
        mask = find_mask(exam, case["left_out"])
        place = output_dir / exam.name / "left_out" / f"{case['left_out']}_{'_'.join(known)}"
        judge(
            *(str(made[row]["file"]) for row in volumes),
            left_out=str(stacks[case["left_out"]]),
            region=None if mask is None else str(mask),
            output_dir=str(place),
            overwrite=True,
        )
        with (place / "left_out.csv").open(newline="") as table:
            rows = [row | found for row, found in zip(rows, csv.DictReader(table), strict=True)]
    rows += [{**case, "row": row, "correlation": "refused"} for row, result in made.items() if not result["file"]]
    for row in rows:
        result = made[row["row"]]
        row |= {"seconds": f"{result.get('seconds', 0):.0f}", "said": result.get("said", "")}
        print(", ".join(f"{value}" for value in row.values() if value), flush=True)
    fields = [*KEY, "row", "correlation", "psnr", "slice_correlation", "behind", "behind_low", "behind_high", "verdict"]
    fields += ["share", "shift", "turn", "seconds", "said"]
    update(output_dir / "real_exams.csv", fields, case, rows)

    bands = []
    for row, volume in volumes.items():
        alone = row.partition(", ")[2]
        for plane in [alone] if alone else known:
            motion = find_motion(stacks[plane], find_mask(exam, plane), made[row]["file"])
            for other in known:
                if other != plane:
                    for found in measured[plane].measure_bands(volume, motion, measured[other]):
                        numbers = {key: f"{value:.3g}" for key, value in found.items()}
                        bands.append({**case, "row": row, "plane": plane, "slices": other, **numbers})
    update(
        output_dir / "bands.csv",
        [*KEY, "row", "plane", "slices", "harmonic", "thin", "thin_beside", "sliced", "sliced_beside"],
        case,
        bands,
    )
    if volumes:
        draw(volumes, measured[known[0]].centre, output_dir / f"{exam.name}_{'_'.join(known)}_{case['left_out']}.png")


def find_motion(stack: Path, mask: Path | None, file: Path) -> np.ndarray:
    """The motion (4, 4) in mm of a stack onto a volume, by what lies in the mask."""
    cut = cut_to_data(JudgedVolume.read(str(stack), "the stack"))
    volume, region = JudgedVolume.read(str(file), "the volume"), None
    if mask is not None:
        read = JudgedVolume.read(str(mask), "the mask")
        region = torch.from_numpy(Person(stack.name, [volume]).sample_mask(read, cut, "the mask") > 0)
    left_out = LeftOutStack(make_stack(cut, read_thickness(cut)), region)
    return left_out.see(make_stack(cut_to_data(volume))).motion


def update(path: Path, fields: list[str], case: dict[str, str], rows: list[dict]) -> None:
    """Write the rows of a case into a table, in place of those that it had."""
    kept = []
    if path.exists():
        with path.open(newline="") as table:
            kept = [row for row in csv.DictReader(table) if any(row[key] != case[key] for key in KEY)]
    with path.open("w", newline="") as table:
        writer = csv.DictWriter(table, fields, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def draw(volumes: dict[str, Volume], centre: np.ndarray, path: Path, size: float = 110.0, step: float = 0.4) -> None:
    """Draw the sagittal, coronal and axial plane of volumes around a point in mm, a row for each."""
    figure = Figure((12, 4 * len(volumes)), layout="tight")
    line = np.arange(-size / 2, size / 2, step)
    for i, (row, volume) in enumerate(volumes.items()):
        for normal in range(3):
            across, up = (axis for axis in range(3) if axis != normal)
            points = np.tile(centre, (len(line), len(line), 1))
            points[..., across] += line[None, ::-1]
            points[..., up] += line[::-1, None]
            inside = volume.locate(points.reshape(-1, 3))[1].reshape(points.shape[:2])
            plane = volume.sample(points.reshape(-1, 3), order=1).reshape(inside.shape) * inside
            axes = figure.add_subplot(len(volumes), 3, 3 * i + normal + 1)
            axes.imshow(plane, cmap="gray", vmin=0, vmax=np.percentile(volume.voxels, 99.5))
            axes.set_axis_off()
            axes.set_title(row if normal == 0 else "")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
