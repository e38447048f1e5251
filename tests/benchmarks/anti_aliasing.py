"""What self-anti-aliasing is worth to SMORE: slices that touch and slices with gaps, with one network and with two.

    python -m tests.benchmarks.anti_aliasing --hr HEAD.nii.gz,HEAD.nii.gz --output_dir O --crop 96 --iterations 300

Each head is cropped to its middle and thickened along its last axis. Each scan trains networks of the bundle's size for
as many iterations, with its true profile: with self-anti-aliasing two of them, in twice the time.
``anti_aliasing.csv`` has a line for each head, width of the slices and form. Lines that are there are not made again.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from common.degradations import DegradeAndInterpolate, GaussianProfile, interpolate
from common.inferers import AdaptedInferer, AntiAliasingInferer, InterpolatedInferer
from common.metrics import compute_psnr, compute_ssim
from common.networks import EDSR, ImageNetwork, SelfAntiAliasing
from common.runtime.precision import apply_precision, choose_autocast

FIELDS = (
    "head",
    "crop",
    "scale",
    "width",
    "two",
    "iterations",
    "psnr",
    "ssim",
    "cubic_psnr",
    "cubic_ssim",
    "gain",
    "used",
    "seconds",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", required=True, help="files, with commas between")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--widths", default="1.0,0.5", help="thickness of the slices over their distance")
    parser.add_argument("--scale", type=int, default=4, help="distance of the slices in voxels")
    parser.add_argument("--crop", type=int, default=96, help="voxels along each axis, a multiple of the scale")
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args()
    file = Path(options.output_dir, "anti_aliasing.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for head in options.hr.split(","):
            hr = read_crop(head, options.crop)
            for width in map(float, options.widths.split(",")):
                for two in (False, True):
                    case = {"head": Path(head).name.split(".")[0], "crop": options.crop, "scale": options.scale}
                    case |= {"width": width, "two": two}
                    case["iterations"] = options.iterations
                    if not is_done(file, case):
                        add_line(file, {**case, **measure(hr, width, two, options)})


def read_crop(file: str, size: int) -> torch.Tensor:
    """The middle of a head, ``(1, 1, size, size, size)``, with the 99.9th percentile at 1."""
    image: Any = nib.as_closest_canonical(nib.load(file))
    first = [(n - size) // 2 for n in image.shape[:3]]
    if min(first) < 0:
        raise ValueError(f"{file} has {image.shape} voxels, fewer than --crop {size}.")
    hr = np.asarray(image.dataobj, dtype=np.float32)[tuple(slice(n, n + size) for n in first)]
    return torch.from_numpy((hr / np.percentile(hr, 99.9)).clip(min=0).astype(np.float32))[None, None]


def measure(hr: torch.Tensor, width: float, two: bool, options: argparse.Namespace) -> dict[str, object]:
    """Thicken a head, let the scan train one network or two, and compare the result with the head."""
    profile = GaussianProfile((1, 1, options.scale), fwhm=width)
    lr = profile(hr)
    torch.manual_seed(0)
    network: torch.nn.Module = SelfAntiAliasing(ImageNetwork(EDSR(features=32, blocks=8)), two).eval()
    network = apply_precision(network, torch.device("cpu"), choose_autocast(None, network, torch.device("cpu")), None)
    inner = InterpolatedInferer(AntiAliasingInferer(), profile)
    inferer = AdaptedInferer(inner, DegradeAndInterpolate(profile), options.iterations, 8, (48, 48), 1e-3)
    began = time.process_time()
    sr, cubic = (volume.clamp(0, 1) for volume in (inferer(lr, network), interpolate(lr, profile)))
    seconds, reference = time.process_time() - began, hr.clamp(0, 1)
    scores = {
        **{"psnr": compute_psnr(sr, reference), "ssim": compute_ssim(sr, reference)},
        **{"cubic_psnr": compute_psnr(cubic, reference), "cubic_ssim": compute_ssim(cubic, reference)},
    }
    gain = scores["psnr"] - scores["cubic_psnr"]
    return {**scores, "gain": gain, "used": inferer.report.get("Used"), "seconds": round(seconds, 1)}


def is_done(file: Path, case: dict[str, object]) -> bool:
    """Whether a file has a line of this case."""
    if not file.is_file():
        return False
    with file.open() as lines:
        return any(all(line[key] == str(value) for key, value in case.items()) for line in csv.DictReader(lines))


def add_line(file: Path, line: dict[str, object]) -> None:
    """Add a line to a file, and print it."""
    fresh = not file.is_file()
    with file.open("a", newline="") as out:
        writer = csv.DictWriter(out, FIELDS)
        if fresh:
            writer.writeheader()
        writer.writerow(line)
    print(line, flush=True)


if __name__ == "__main__":
    main()
