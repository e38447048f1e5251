"""Our bundles beside the authors' own programs, on the same scans: PSNR, SSIM, seconds and memory.

    python -m tests.benchmarks.peers --hr T1W,T2W,FLAIR --output_dir O --crop 64 --seconds 300 --peers_python PYTHON

The files are HR contrasts of one person on one grid, whose voxels are taken as cubes of 1 mm. Each contrast is cropped
to its middle and thickened along another axis by a Gaussian profile, then each method makes it thin again:

- cubic, smore, eclare, ct_guided: each contrast alone, or with ``--alone`` only the first so many;
- stacks, joint_tv and UniRes: all contrasts together, so their seconds and memory are those of the exam.

``--peers_python`` is a Python that has PyPI's eclare, or UniRes and nitorch. What it lacks is left out with the reason.
Methods that train on the scan do as many iterations as fit in ``--seconds``, by the speed of two short runs.

``peers.csv`` has a line for each method and contrast. ``psnr_aligned`` is that of the result moved back by
``displacement``, which is measured against HR. ``seconds`` are those of one processor core, which do not depend on what
else the machine does; those of PyPI's eclare include its two short runs. ``memory_mb`` is the peak of the program and
those that it started. Results that are there are used again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from common.degradations import GaussianProfile
from common.metrics import compute_psnr, compute_ssim, measure_displacement, shift_volume

ROOT = Path(__file__).parents[2]
TOGETHER = {"stacks": (), "joint_tv": ("--bundle", "joint_tv")}  # options of super-resolve
SHORT = (10, 40)  # iterations of the two runs that measure the speed
MARGIN = 12  # voxels at the border of a crop that no score counts: UniRes takes what lies outside for zero
METHODS = ("cubic", "ct_guided", "smore", "eclare", "eclare (PyPI)", "stacks", "joint_tv", "UniRes")
# Small itself: a program begins with the peak memory of the one that starts it.
OURS = """
import json, sys
from common.__main__ import main
sys.argv = ["common", "super-resolve", *json.loads(sys.argv[1])]
main()
"""
LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.time()
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
found = {"code": code, "seconds": used.ru_utime + used.ru_stime, "wall_seconds": time.time() - began}
json.dump({**found, "memory_mb": used.ru_maxrss / 1024}, open(sys.argv[1], "w"))
"""
CUBIC = """
import json, sys
import nibabel as nib
from common.degradations import GaussianProfile
from common.metrics import interpolate_cubic
path, result, factor = json.loads(sys.argv[1])
scan, thick = nib.load(path), GaussianProfile((1, 1, factor))
volume = interpolate_cubic(scan.get_fdata(), thick.factors, thick.offset)
nib.save(nib.Nifti1Image(volume, thick.compute_hr_affine(scan.affine)), result)
"""
PEER = """
import importlib, json, sys
module, function, arguments = json.loads(sys.argv[1])
found = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)(*arguments)
if isinstance(found, str):
    sys.exit(found)
"""


class Failure(Exception):
    """Why a method has no result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", required=True, help="files of one person's contrasts, with commas between")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--peers_python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=300, help="for a method that trains on the scan")
    parser.add_argument("--alone", type=int, default=None, help="contrasts for methods that know one; default all")
    parser.add_argument("--scale", type=int, default=4, help="thickness of the slices in voxels")
    parser.add_argument("--crop", type=int, default=96, help="voxels along each axis, a multiple of the scale")
    options = parser.parse_args()
    methods = options.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"--methods has {', '.join(sorted(unknown))}, expected some of {', '.join(METHODS)}")
    if options.crop % options.scale:
        parser.error(f"--crop is {options.crop}, expected a multiple of --scale {options.scale}")
    folder = Path(options.output_dir).resolve()
    check_options(folder / "options.json", {"scale": options.scale, "crop": options.crop, "seconds": options.seconds})
    cases = [Case(Path(file), i, folder, options) for i, file in enumerate(options.hr.split(","))]
    rows: list[dict] = []
    for method in methods:
        try:
            rows += run_method(method, cases, folder, options)
        except Failure as reason:
            print(f"{method}: left out: {reason}", flush=True)
    if not rows:
        sys.exit("no method has a result")
    with (folder / "peers.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def check_options(file: Path, options: dict[str, float]) -> None:
    """Keep the options of a folder's results, which are used again, and stop if they were others."""
    if file.is_file() and json.loads(file.read_text()) != options:
        sys.exit(f"{file.parent} has results of {file.read_text()}, expected {options}; give another --output_dir.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(options))


class Case:
    """A contrast: its HR crop, in [0, 1] by its 99.9th percentile, and the scan, whose slices are its last axis."""

    def __init__(self, file: Path, index: int, folder: Path, options: argparse.Namespace) -> None:
        self.name = file.name.removesuffix(".gz").removesuffix(".nii")
        image: Any = nib.as_closest_canonical(nib.load(file))
        middle = [(n - options.crop) // 2 for n in image.shape[:3]]
        if min(middle) < 0:
            raise ValueError(f"{file} has {image.shape} voxels, fewer than --crop {options.crop}.")
        crop = tuple(slice(first, first + options.crop) for first in middle)
        hr = np.asarray(image.dataobj, dtype=np.float32)[crop]
        self.hr = np.clip(hr / np.percentile(hr, 99.9), 0, 1)
        self.factors = [1, 1, 1]
        self.factors[2 - index % 3] = options.scale
        self.degradation = GaussianProfile(self.factors)
        self.scan = folder / "scans" / f"{self.name}.nii.gz"
        self.scan.parent.mkdir(parents=True, exist_ok=True)
        lr = self.degradation(torch.from_numpy(self.hr)[None])[0].numpy()
        thick = 2 - index % 3
        order = [(thick + 1) % 3, (thick + 2) % 3, thick]
        affine = self.degradation.compute_lr_affine(np.eye(4))[:, [*order, 3]]
        nib.save(nib.Nifti1Image(1000 * lr.transpose(order), affine), self.scan)

    def score(self, result: Path) -> dict[str, object]:
        """PSNR and SSIM of a result, on the grid of the HR crop, without its border."""
        image: Any = nib.load(result)
        volume = np.asarray(image.dataobj, dtype=np.float32).squeeze() / 1000
        places = np.linalg.inv(image.affine)  # from voxels of HR, whose affine is the identity
        if volume.shape != self.hr.shape or not np.allclose(places, np.eye(4), atol=1e-3):
            volume = ndimage.affine_transform(
                volume, places[:3, :3], places[:3, 3], self.hr.shape, order=3, mode="nearest"
            )
        inner = (slice(MARGIN, -MARGIN),) * 3
        volume, hr = volume[inner], self.hr[inner]
        shift = measure_displacement(volume, hr, self.factors)
        back = volume if not np.isfinite(shift).all() else shift_volume(volume, [-each for each in shift])
        volume, back = np.clip(volume, 0, 1), np.clip(back, 0, 1)
        return {
            "psnr": compute_psnr(volume, hr),
            "ssim": compute_ssim(volume, hr),
            "psnr_aligned": compute_psnr(back, hr),
            "displacement": " ".join(f"{each:.2f}" for each in shift),
        }


def run_method(method: str, cases: Sequence[Case], folder: Path, options: argparse.Namespace) -> list[dict]:
    """The rows of a method, one for each contrast."""
    output = folder / method.replace(" ", "_")
    output.mkdir(parents=True, exist_ok=True)
    if method in TOGETHER or method == "UniRes":
        found, used = run_exam(method, [case.scan for case in cases], output, options)
        done = [(case, found[case.name], used) for case in cases]
    else:
        done = [(case, *run_alone(method, case, output, options)) for case in cases[: options.alone]]
    rows = []
    for case, result, used in done:
        told = {key: round(used[key], 1) for key in ("seconds", "wall_seconds", "memory_mb")}
        rows.append({"method": method, "contrast": case.name, **case.score(result), **told})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def run_exam(
    method: str, scans: Sequence[Path], output: Path, options: argparse.Namespace
) -> tuple[dict[str, Path], dict[str, float]]:
    """Results by contrast of a method for all contrasts together, and what it used."""
    names = [scan.name.removesuffix(".nii.gz") for scan in scans]
    if method == "UniRes":
        arguments = (options.peers_python, [str(scan) for scan in scans], str(output), 1.0)
        used = launch(PEER, ["peer_unires", "run_unires", arguments], output / "used.json")
        return {name: output / f"u_{name}.nii.gz" for name in names}, used
    if method == "joint_tv" and not (ROOT / "bundles" / method).is_dir():
        raise Failure(f"there is no bundle {method}")
    paths = [*map(str, scans), "--exam", "--output_dir", str(output), "--spacing", "1", *TOGETHER[method]]
    used = launch(OURS, paths, output / "used.json")
    return {name: find_result(output, name) for name in names}, used


def run_alone(method: str, case: Case, output: Path, options: argparse.Namespace) -> tuple[Path, dict[str, float]]:
    """The result of a method for one contrast, and what it used."""
    result, used = output / case.scan.name, output / f"{case.name}_used.json"
    if method == "cubic":
        return result, launch(CUBIC, [str(case.scan), str(result), options.scale], used)
    if method == "eclare (PyPI)":
        arguments = (options.peers_python, str(case.scan), str(result), options.seconds)
        return result, launch(PEER, ["peer_eclare", "run_eclare", arguments], used)
    if not (ROOT / "bundles" / method).is_dir():
        raise Failure(f"there is no bundle {method}")

    def run(file: Path, *more: str) -> dict[str, float]:
        paths = [str(case.scan), "--output_dir", str(file), "--bundle", method, "--scale", f"1x1x{options.scale}"]
        return launch(OURS, [*paths, *more], file.with_name(file.name.replace(".nii.gz", "_used.json")))

    if method == "ct_guided":
        return result, run(result)
    seconds = [run(output / f"{case.name}_{n}_of_speed.nii.gz", "--iterations", str(n))["seconds"] for n in SHORT]
    each = max((seconds[1] - seconds[0]) / (SHORT[1] - SHORT[0]), 1e-3)
    iterations = max(1, round((options.seconds - seconds[0]) / each) + SHORT[0])
    return result, run(result, "--iterations", str(iterations))


def launch(program: str, arguments: Sequence[object], used: Path) -> dict[str, float]:
    """Run a Python program on one thread, and return what it used, which is kept in a file."""
    if not used.is_file():
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        log = used.with_suffix(".log")
        with log.open("w") as out:
            subprocess.run(
                [sys.executable, "-S", "-c", LAUNCHER, str(used), sys.executable, "-c", program, json.dumps(arguments)],
                cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **threads}, check=True,
            )  # fmt: skip
    found = json.loads(used.read_text())
    if found["code"]:
        lines = used.with_suffix(".log").read_text().strip().splitlines()
        used.unlink()
        raise Failure(lines[-1] if lines else f"exit code {found['code']}")
    return found


def find_result(output: Path, name: str) -> Path:
    """The file that super-resolve wrote for a contrast of an exam."""
    found = sorted(output.glob(f"*{name}*_sr.nii.gz"))
    if len(found) != 1:
        raise Failure(f"{output} has {len(found)} results of {name}, expected one")
    return found[0]


if __name__ == "__main__":
    main()
