"""PyPI's eclare, the authors' own program (Remedios et al. 2025), in a Python of its own.

    python -m tests.benchmarks.peer_eclare --python VENV/bin/python --hr HR.nii.gz --lr LR.nii.gz --output_dir O \\
        --patches 2000 --results '{"smore": "SMORE.nii.gz"}'

It makes the HR from an LR whose slices are thicker along the last axis, and prints a line for the authors' result, for
cubic interpolation, and for each of the given results: PSNR and SSIM as its voxels lie, the displacement against HR,
and PSNR after it was moved back.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from common.metrics import compute_psnr, compute_ssim, interpolate_cubic, measure_displacement, shift_volume
from tests.benchmarks.common_parts import command

BATCH = 16  # patches; of the default, 128, a CPU does a handful of steps in minutes
SHORT = (32, 96)  # patches of the two runs that measure the speed


def run_eclare(python: str, scan: Path | str, output: Path | str, seconds: float) -> Path | str:
    """Super-resolve a scan whose slices touch, with as many patches as fit in a number of CPU seconds.

    Args:
        python: a Python that has eclare.
        scan: NIfTI file, slices along the last axis, with a Gaussian profile as wide as their distance.
        output: file of the result.
        seconds: of one core, for training and inference.

    Returns:
        The result's file, or the reason why there is none.
    """
    used = []
    for patches in SHORT:
        if isinstance(done := run_with_patches(python, scan, output, patches), str):
            return done
        used.append(done)
    each = max((used[1] - used[0]) / (SHORT[1] - SHORT[0]), 1e-3)
    patches = max(SHORT[1], round((seconds - used[0]) / each) + SHORT[0])
    done = run_with_patches(python, scan, output, patches)
    return done if isinstance(done, str) else Path(output)


def run_with_patches(python: str, scan: Path | str, output: Path | str, patches: int) -> float | str:
    """As :func:`run_eclare` with a number of patches; returns CPU seconds, or the reason why there is no result."""
    if subprocess.run([python, "-c", "import eclare.main"], capture_output=True).returncode:
        return f"{python} has no eclare: pip install eclare"
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "--in-fpath": scan, "--out-dir": output.parent, "--n-patches": patches, "--batch-size": BATCH,
        "--relative-slice-thickness": 1.0, "--gpu-id": -1, "--suffix": "_peer",
    }  # fmt: skip
    words = [str(word) for option in options.items() for word in option]
    before = sum(os.times()[2:4])
    code = "import sys; from eclare.main import main; sys.exit(main())"
    done = subprocess.run(
        [python, "-c", code, *words], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    made = [*output.parent.glob("**/*_peer.nii.gz")]
    if done.returncode or not made:
        return (done.stderr.strip().splitlines() or ["it wrote no result"])[-1]
    made[0].replace(output)
    return sum(os.times()[2:4]) - before


def measure(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    """PSNR (dB) and SSIM of a result on the grid of HR, its displacement along Z in voxels, and PSNR without that.

    Volumes are in [0, 1]. Voxels that a shift brings from outside, at both ends of Z, are in no PSNR.
    """
    sizes = [slice(min(pair)) for pair in zip(result.shape, hr.shape, strict=True)]
    result, hr = result[tuple(sizes)], hr[tuple(sizes)]
    displacement = measure_displacement(result, hr, (1, 1, factor))[2]
    inner = np.s_[..., factor:-factor]
    moved = shift_volume(result, (0, 0, -displacement))
    return {
        "psnr": compute_psnr(result, hr),
        "ssim": compute_ssim(result, hr),
        "psnr_inner": compute_psnr(result[inner], hr[inner]),
        "displacement": displacement,
        "psnr_aligned": compute_psnr(moved[inner], hr[inner]),
    }


def main(
    python: str, hr: str, lr: str, output_dir: str, patches: int = 2000, results: Mapping[str, str] | str = "{}"
) -> None:
    """Run the authors' program on one scan, and compare; results are files on the grid of HR, by their methods."""
    factor = round(nib.load(hr).shape[2] / nib.load(lr).shape[2])
    output, began = Path(output_dir) / "peer.nii.gz", time.perf_counter()
    done = output if output.is_file() else run_with_patches(python, lr, output, patches)
    if isinstance(done, str):
        print(f"skipped: {done}")
    elif done != output:
        print(f"{patches} patches: {done:.0f} CPU seconds, {time.perf_counter() - began:.0f} seconds")
    truth, thick = (nib.load(file).get_fdata(dtype=np.float32) for file in (hr, lr))
    top = np.percentile(truth, 99.9)
    volumes = {"cubic": interpolate_cubic(thick, (1, 1, factor), (0, 0, (factor - 1) / 2))}
    files = {"eclare (PyPI)": output, **(json.loads(results) if isinstance(results, str) else results)}
    volumes |= {name: nib.load(file).get_fdata(dtype=np.float32) for name, file in files.items() if Path(file).exists()}
    for name, volume in volumes.items():
        found = measure((volume / top).clip(0, 1), (truth / top).clip(0, 1), factor)
        print(name, json.dumps({key: round(value, 4) for key, value in found.items()}))


if __name__ == "__main__":
    command(main)
