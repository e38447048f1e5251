"""What each change of a scan takes from the gain over cubic interpolation, and which statistic shows it.

    python -m tests.benchmarks.out_of_range --heads A.nii.gz,B.nii.gz --weights udean_window:2x2x1 --output O.csv

HR heads are changed one way at a time, degraded and super-resolved, without fine-tuning. A line of the table has the
head, the weights, the change, the gain in dB (tissue of a central crop), and each statistic over the limit of its
training range: the most extreme value over the upper limit if this is above 1, the lower limit over it if that is.
A change of an axis that the weights do not refine is made to the truth too, because they leave that axis as it is.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import fft, ndimage
from skimage.filters import threshold_otsu
from skimage.restoration import denoise_tv_chambolle

from common.degradations import GaussianProfile
from common.metrics import interpolate_cubic
from common.program.bundles import BUNDLES
from common.program.catalogue import Candidate
from common.transforms.scan.scan_statistics import compute_scan_statistics

# Voxels of a head, of the crop that is super-resolved, and of the crop's edge that is not compared.
_LARGEST, _CROP, _EDGE = 192, 80, 4


def shape_spectrum(gain: Callable, *axes: int) -> Callable:
    """k-space multiplied by a gain, a function of the frequency in Nyquist frequencies."""

    def apply(volume: np.ndarray) -> np.ndarray:
        for axis in axes:
            lines = np.moveaxis(volume, axis, -1)
            spectrum = fft.rfft(lines, axis=-1)
            spectrum = spectrum * gain(np.linspace(0, 1, spectrum.shape[-1]))
            volume = np.moveaxis(fft.irfft(spectrum, lines.shape[-1], axis=-1), -1, axis)
        return volume

    return apply


def fill(part: float, *axes: int) -> Callable:
    """Outer k-space set to 0, as by a scanner that interpolates."""
    return shape_spectrum(lambda frequency: frequency <= part, *axes)


def interpolate(*axes: int) -> Callable:
    """Every second sample replaced by the mean of its neighbours."""

    def apply(volume: np.ndarray) -> np.ndarray:
        for axis in axes:
            lines = np.moveaxis(fill(0.5, axis)(volume), axis, 0)
            lines[1:-1:2] = (lines[:-2:2] + lines[2::2]) / 2
            volume = np.moveaxis(lines, 0, axis)
        return volume

    return apply


def sharpen(by: float, *axes: int) -> Callable:
    """Outer k-space amplified, as by a filter of the scanner."""
    return shape_spectrum(lambda frequency: 1 + by * frequency**2, *axes)


def add_noise(sigma: float) -> Callable:
    random = np.random.default_rng(0)
    return lambda v: np.hypot(v + sigma * random.standard_normal(v.shape), sigma * random.standard_normal(v.shape))


def flicker(sigma: float) -> Callable:
    """Slices that differ in brightness."""
    return lambda v: v * (1 + sigma * np.random.default_rng(0).standard_normal(v.shape[2]))


def move(sigma: float) -> Callable:
    """Slices that moved in plane, each by itself, in voxels."""

    def apply(volume: np.ndarray) -> np.ndarray:
        shifts = sigma * np.random.default_rng(0).standard_normal((volume.shape[2], 2))
        slices = [ndimage.shift(volume[..., i], shift, order=3, mode="nearest") for i, shift in enumerate(shifts)]
        return np.stack(slices, axis=-1)

    return apply


def get_tissue(volume: np.ndarray) -> np.ndarray:
    return volume > threshold_otsu(volume.clip(0, 1))


def invert(volume: np.ndarray) -> np.ndarray:
    """Bright and dark tissue exchanged; air stays dark."""
    inside = ndimage.gaussian_filter(volume, 1) > 0.5 * threshold_otsu(volume.clip(0, 1))
    return np.where(inside, (1.1 - volume).clip(0, 1), volume)


def flatten(part: float) -> Callable:
    """Contrast of tissue reduced, as in CT."""
    return lambda v: np.where(get_tissue(v), 0.7 + part * (v - 0.7), v * 0.7)


def dim(by: float) -> Callable:
    """Voxels outside of the crop that are brighter than all tissue."""

    def apply(volume: np.ndarray) -> np.ndarray:
        volume = by * volume
        volume[2:22, 2:22, 2:22] = 1
        return volume

    return apply


def coarsen(factor: float) -> Callable:
    def apply(volume: np.ndarray) -> np.ndarray:
        size = [int(n / factor) // 8 * 8 for n in volume.shape]
        zoom = [m / n for m, n in zip(size, volume.shape, strict=True)]
        return ndimage.zoom(fill(1 / factor, 0, 1, 2)(volume), zoom, order=3)

    return apply


PLANE, ACROSS = (0, 1), (2,)
# Changes by name: of LR, along axes if it has some, or of HR. A whole number is that of HR slices that a thick slice
# has, another the width of a Gaussian profile in thick slices.
LR_CHANGES: dict[str, tuple[tuple[int, ...], Any]] = {
    **{f"noise {s}": ((), add_noise(s)) for s in (0.02, 0.05, 0.12)},
    **{f"denoised {w}": ((), lambda v, w=w: denoise_tv_chambolle(v, w, max_num_iter=12)) for w in (0.02, 0.06, 0.15)},
    **{f"plane {p}": (PLANE, fill(p, *PLANE)) for p in (0.7, 0.5, 0.35)},
    **{f"slices {p}": (ACROSS, fill(p, *ACROSS)) for p in (0.7, 0.5)},
    "plane linear": (PLANE, interpolate(*PLANE)),
    "slices linear": (ACROSS, interpolate(*ACROSS)),
    **{f"plane sharper {b}": (PLANE, sharpen(b, *PLANE)) for b in (4,)},
    **{f"slices sharper {b}": (ACROSS, sharpen(b, *ACROSS)) for b in (4,)},
    **{f"slices flicker {s}": (ACROSS, flicker(s)) for s in (0.05, 0.2)},
    **{f"slices moved {s}": ((), move(s)) for s in (0.3, 1.0)},
    **{f"gaps {n}": (ACROSS, n) for n in (1, 2)},
    **{f"profile {w}": (ACROSS, w) for w in (0.7, 1.4)},
}
HR_CHANGES: dict[str, Callable] = {
    "none": lambda v: v,
    **{f"gamma {g}": lambda v, g=g: v.clip(0, 1) ** g for g in (0.4, 2.5)},
    **{f"flat {p}": flatten(p) for p in (0.2, 0.05)},
    **{f"dim {b}": dim(b) for b in (0.35, 0.15)},
    **{f"air {a}": lambda v, a=a: (v + a) / (1 + a) for a in (0.1, 0.3)},
    "air 0": lambda v: np.where(ndimage.binary_closing(get_tissue(v), iterations=2), v, 0),
    "inverted": lambda v: (1 - v).clip(0, 1),
    "inverted tissue": invert,
    "mask": lambda v: get_tissue(v).astype(np.float32),
    "labels": lambda v: np.round(v.clip(0, 1) * 4) / 4,
    **{f"coarser {f}": coarsen(f) for f in (1.5, 2)},
    "crop": lambda v: cut(v, _CROP),
}


def cut(volume: np.ndarray, largest: int) -> np.ndarray:
    """The central part with at most so many voxels along each axis, a multiple of 8."""
    size = [min(n, largest) // 8 * 8 for n in volume.shape]
    return volume[tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(volume.shape, size, strict=True))]


def read_head(file: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.load(file))
    volume = np.squeeze(np.asarray(image.dataobj, dtype=np.float32)).clip(0)
    volume /= np.quantile(volume[volume > 0], 0.998)
    inside = np.argwhere(get_tissue(volume))
    low, high = (inside.min(axis=0) - 8).clip(0), inside.max(axis=0) + 9
    return cut(volume[tuple(map(slice, low, high))], _LARGEST), np.diag([*nib.affines.voxel_sizes(image.affine), 1])


class Weights:
    """Weights of a bundle, and what they do to an LR volume ``(X, Y, Z)``."""

    def __init__(self, name: str) -> None:
        bundle, _, kind = name.partition(":")
        model = BUNDLES / bundle / "models" / f"model{'_' * bool(kind)}{kind}.pt"
        candidate = Candidate(BUNDLES / bundle, model.with_suffix(".json"), {"checkpoint": model}, (), None, (), False)
        parser = candidate.make_workflow([]).parser
        if "adapt_iterations" in parser.config:
            parser["adapt_iterations"] = 0
        self.degradation = parser.get_parsed_content("degradation")
        self.ranges = candidate.read_overlay().get("training_range")
        self.inferer = parser.get_parsed_content("inferer")
        self.network = parser.get_parsed_content("evaluator").network.eval()

    def measure_gain(self, hr: np.ndarray, lr: np.ndarray) -> float:
        """dB over cubic in the tissue of the central crop."""
        factors = [round(f) for f in self.degradation.factors]
        size = [min(n, _CROP) // 8 * 8 for n in hr.shape]
        first = [(n - m) // 2 // 8 * 8 for n, m in zip(hr.shape, size, strict=True)]
        truth = hr[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))]
        part = lr[tuple(slice(a // f, (a + n) // f) for a, n, f in zip(first, size, factors, strict=True))]
        inputs = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None, None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            sr = self.inferer(inputs, self.network)[0, 0].float().numpy()
        cubic = interpolate_cubic(inputs, factors, self.degradation.offset)[0, 0].numpy()
        inner = (slice(_EDGE, -_EDGE),) * 3
        tissue = get_tissue(hr)[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))][inner]
        errors = [np.square(v[inner] - truth[inner])[tissue].mean() for v in (cubic, sr)]
        return float(10 * np.log10(errors[0] / errors[1]))

    def change(self, hr: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """HR and LR with a change."""
        axes, change = LR_CHANGES.get(name, ((), None))
        hr = HR_CHANGES.get(name, lambda v: v)(hr)
        kept = [axis for axis in axes if self.degradation.factors[axis] == 1]
        if kept and callable(change):
            assert len(kept) == len(axes)
            hr = change(hr)
        fwhm = change if isinstance(change, float) else None
        degradation = GaussianProfile(self.degradation.factors, fwhm) if fwhm else self.degradation
        lr = degradation(torch.from_numpy(np.ascontiguousarray(hr, dtype=np.float32))[None, None])[0, 0].numpy()
        if isinstance(change, int):
            slices = hr.reshape(*hr.shape[:2], -1, round(self.degradation.factors[2]))
            return hr, slices[..., 1 : 1 + change].mean(axis=-1)
        return hr, change(lr) if callable(change) and not kept else lr

    def compare(self, lr: np.ndarray, affine: np.ndarray) -> dict[str, str]:
        """Each statistic over the limit of its range that it is beyond."""
        beyond = {}
        for name, values in compute_scan_statistics(lr[None], affine).items():
            low, high = self.ranges.get(name, (-np.inf, np.inf))
            below = f"-{low / max(min(values), 1e-6):.2f}" if min(values) < low else ""
            above = f"+{max(values) / high:.2f}" if max(values) > high else ""
            beyond[name] = f"{below} {above}".strip()
        return beyond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", required=True, help="HR files, with commas between")
    parser.add_argument("--weights", default="udean_window,udean_window:2x2x1,ct_guided", help="BUNDLE or BUNDLE:KIND")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    with Path(options.output).open("w", newline="") as table:
        rows = csv.writer(table)
        for weights in options.weights.split(","):
            used = Weights(weights)
            for file in options.heads.split(","):
                head, affine = read_head(file)
                for name in [*HR_CHANGES, *LR_CHANGES]:
                    if "gaps" in name and used.degradation.factors[2] < 4:
                        continue
                    hr, lr = used.change(head, name)
                    scale = 1 / max(np.quantile(lr, 0.999), 1e-6)  # as NormaliseVolumed does
                    hr, lr = hr * scale, lr * scale
                    larger = float(name.split()[1]) if "coarser" in name else 1
                    found = used.compare(lr, np.diag([*used.degradation.factors, 1]) * affine * larger)
                    if table.tell() == 0:
                        rows.writerow(["weights", "head", "change", "gain", *found])
                    gain = f"{used.measure_gain(hr, lr):.2f}"
                    rows.writerow([weights, Path(file).name.split(".")[0], name, gain, *found.values()])
                    table.flush()


if __name__ == "__main__":
    main()
