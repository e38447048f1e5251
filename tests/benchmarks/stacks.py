"""What several thick stacks of a head are worth together: against one, their mean, and data consistency without a
network.

    python -m tests.benchmarks.stacks --heads HEAD.nii.gz,HEAD.nii.gz --output_dir O --motion 3 --noise 0.02

With ``--guides``, files of another contrast on the grids of the heads, also what one stack gains by a thick guide.

Each head is thickened along three axes; the second and third stack are moved at random. A combined volume is compared
with the head as it lies in the reference stack. The other rows know the motion.
``stacks.csv`` has a line for each head and row. Results that are there are used again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from common.degradations import GaussianProfile
from common.geometry.resampling import SplineResampling
from common.geometry.rigid import make_rigid_matrix
from common.physics.noise import estimate_noise_in_air
from common.program.commands.super_resolve import super_resolve
from common.stacks import StackOperator, enforce_data_consistency

MARGIN = 8  # voxels of air around a head, into which it may move
USED = {"two": (0, 1), "three": (0, 1, 2)}
ORDERS = {0: [0, 1, 2], 1: [1, 2, 0], 2: [0, 2, 1]}  # axes of the head along those of each stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", required=True, help="files of isotropic heads, with commas between")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--guides", default="", help="a file for each head, with commas between")
    parser.add_argument("--thickness", type=int, default=4, help="of the slices in voxels")
    parser.add_argument("--motion", type=float, default=0.0, help="at most so many mm and degrees")
    parser.add_argument("--noise", type=float, default=0.0, help="Rician, of the brightest tissue")
    parser.add_argument("--iterations", type=int, default=400, help="of fine-tuning for each stack")
    options = parser.parse_args()
    rows = []
    for file, guide in itertools.zip_longest(options.heads.split(","), filter(None, options.guides.split(","))):
        folder = Path(options.output_dir, Path(file).name.removesuffix(".gz").removesuffix(".nii"))
        rows += [{"head": folder.name, **row} for row in measured(file, guide, folder, options)]
    fields = list(rows[0])
    with Path(options.output_dir, "stacks.csv").open("w") as out:
        writer = csv.DictWriter(out, fields)
        writer.writeheader()
        writer.writerows(rows)
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == name]
        means = {key: np.mean([row[key] for row in own]) for key in ("psnr", "tissue_psnr", "ssim", "seconds")}
        spread = f"{min(row['psnr'] for row in own):.2f} to {max(row['psnr'] for row in own):.2f}"
        print(
            f"{name:32} {means['psnr']:.2f} dB ({spread}), in tissue {means['tissue_psnr']:.2f} dB, "
            f"{means['ssim']:.4f}, {means['seconds']:.0f} s"
        )


def measured(file: str, guide: str | None, folder: Path, options: argparse.Namespace) -> list[dict]:
    """The rows of one head."""
    (hr, *others), affine = heads([file] if guide is None else [file, guide], options.thickness)
    rng = np.random.default_rng(0)
    stacks, places = [], []
    for i in ORDERS:
        places.append(make_rigid_matrix(rng.uniform(-options.motion, options.motion, 6) * (i > 0), np.zeros(3)))
        stacks.append(thick(hr, affine, i, places[i], folder / f"stack_{i}.nii.gz", options, rng))
    scores = []

    def score(row: str, volume: np.ndarray, seconds: float, head: np.ndarray = hr) -> None:
        volume = np.clip(volume, 0, 1)
        tissue = head > 0.1
        errors = [float(np.mean((volume - head)[where] ** 2)) for where in (..., tissue)]
        window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        ssim = structural_similarity(volume, head, data_range=1, **window)
        psnr, in_tissue = (-10 * np.log10(error) for error in errors)
        scores.append({"row": row, "psnr": psnr, "tissue_psnr": in_tissue, "ssim": ssim, "seconds": seconds})
        print(f"{folder.name}: {row}: {psnr:.2f} dB", flush=True)

    def run(name: str, *paths: str, **named) -> tuple[Path, dict]:
        """The file of a result, and what is said of it."""
        (folder / name).mkdir(parents=True, exist_ok=True)
        found = sorted((folder / name).glob("*_sr.nii.gz"))
        if not found:
            named["adapt_iterations"] = options.iterations
            super_resolve(*paths, output_dir=str(folder / name), keep_paths=True, **named)
            found = sorted((folder / name).glob("*_sr.nii.gz"))
        return found[0], json.loads(Path(str(found[0]).replace(".nii.gz", ".json")).read_text())["SuperResolution"]

    def score_result(row: str, file: Path, said: dict) -> None:
        """Score a combined volume against the head as it lies in the reference stack."""
        volume, own = ordered(str(file))
        which = next(i for i, stack in enumerate(stacks) if said["Adapted"].get(Path(stack).name, {}).get("Reference"))
        head = hr if which == 0 else sample(hr, np.linalg.inv(affine) @ places[which] @ own, volume.shape)
        score(row, volume, said["Seconds"], head.clip(0, 1))

    if others:
        (guide,) = (thick(other, affine, 1, np.eye(4), folder / "guide.nii.gz", options, rng) for other in others)
    alone = [run(f"alone_{i}", path, bundle="ct_guided") for i, path in enumerate(stacks)]
    for name, used in USED.items():
        paths = [stacks[i] for i in used]
        together = run(name, *paths, together=True)
        operators, read, thin, cubic = [], [], [], []
        for i in used:
            place = places[i]
            voxels, own = ordered(stacks[i])
            operators.append(StackOperator(hr.shape, affine, voxels.shape, place @ own))
            read.append(torch.from_numpy(voxels))
            cubic.append(
                SplineResampling(voxels.shape, hr.shape, np.linalg.inv(place @ own) @ affine)(read[-1]).numpy()
            )
            made, its = ordered(str(alone[i][0]))
            thin.append(
                SplineResampling(made.shape, hr.shape, np.linalg.inv(place @ its) @ affine)(
                    torch.from_numpy(made)
                ).numpy()
            )
        if name == "two":
            best = max(range(2), key=lambda i: -np.mean((thin[i] - hr) ** 2))
            score("one, cubic", cubic[best], 0.0)
            score("one, ct_guided (the better)", thin[best], alone[best][1]["Seconds"])
            if others:
                guided = run("guided", stacks[0], together=True, guide=guide)
                score("one (the first), ct_guided", thin[0], alone[0][1]["Seconds"])
                score_result("one (the first), with a guide", *guided)
        score(f"{name}, mean of ct_guided", np.mean(thin, axis=0), sum(alone[i][1]["Seconds"] for i in used))
        variances = [float(estimate_noise_in_air(y[None, None]).nan_to_num(0)[0]) ** 2 + 0.004**2 for y in read]
        began = time.perf_counter()
        mean = torch.from_numpy(np.mean(cubic, axis=0)).float()
        score(
            f"{name}, DC alone",
            enforce_data_consistency(mean, read, operators, variances, 0.1, 20).numpy(),
            time.perf_counter() - began,
        )
        score_result(f"{name}, together", *together)
    return scores


def heads(files: list[str], thickness: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A head in several contrasts, each in [0, 1] with air around, and their affine."""
    volumes = []
    for file in files:
        image = nib.as_closest_canonical(nib.load(file))
        voxel = image.header.get_zooms()[:3]
        if np.ptp(voxel) > 0.01 * max(voxel):
            raise ValueError(f"{file}: voxels are {voxel} mm, expected cubes.")
        hr = np.squeeze(np.asarray(image.dataobj, dtype=np.float32))
        volumes.append(np.clip(hr / np.percentile(hr, 99.9), 0, 1))
    where = np.argwhere(ndimage.binary_opening(volumes[0] > 0.05, iterations=2))
    box = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
    sizes = [-(-(s.stop - s.start + 2 * MARGIN) // thickness) * thickness for s in box]
    air = [(MARGIN, size - (s.stop - s.start) - MARGIN) for s, size in zip(box, sizes, strict=True)]
    affine = np.diag([*3 * [float(voxel[0])], 1.0])
    affine[:3, 3] = -affine[0, 0] * (np.array(sizes) - 1) / 2
    return [np.pad(volume[box], air) for volume in volumes], affine


def thick(
    hr: np.ndarray,
    affine: np.ndarray,
    which: int,
    motion: np.ndarray,
    path: Path,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> str:
    """The file of a thick stack of a head that has moved; the first is across the last axis."""
    fine = affine[:, [*ORDERS[which], 3]]
    shape = [hr.shape[axis] for axis in ORDERS[which]]
    places = np.linalg.inv(affine) @ motion @ fine
    profile = GaussianProfile((1, 1, options.thickness))
    # Splines ring below 0 where a head's field of view ends, which no scan does.
    lr = profile(torch.from_numpy(sample(hr, places, shape) if which else hr).float()).clamp_min(0).numpy()
    if options.noise:
        lr = np.hypot(lr + options.noise * rng.normal(size=lr.shape), options.noise * rng.normal(size=lr.shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((1000 * lr).astype(np.float32), profile.compute_lr_affine(fine)), path)
    return str(path)


def ordered(path: str) -> tuple[np.ndarray, np.ndarray]:
    """A file's voxels in the units of the head; the simulated stacks have their slices along the last axis."""
    image = nib.load(path)
    return np.asarray(image.dataobj, dtype=np.float32) / 1000, image.affine


def sample(volume: np.ndarray, places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A volume on another grid, by splines and the matrix from its voxels to those of the volume."""
    return ndimage.affine_transform(volume, places[:3, :3], places[:3, 3], shape, order=5, mode="constant")


if __name__ == "__main__":
    main()
