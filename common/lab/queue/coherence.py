"""By direction and frequency, what a volume shows of a stack that was left out, and how much of its slices is noise.

    python -m common.lab.queue.coherence STACK.nii.gz VOLUME.nii.gz ...

Volumes lie on one grid. They get the motion by which the first fits the stack, and are seen through its slices, as by
``mri-sr judge --left_out``. A line of a ring has the coherence of both spectra, and their powers' ratio, along the
slices' first axis, second axis, and between them (30 to 60 degrees). Lines of planes have the power along the axes over
that between them, at 0.25 to 0.5 cycles/mm. Last is noise's share of the stack's power, by detail in tissue.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from ...geometry.robust import SIGMA_PER_MAD
from ...physics.noise import compute_tissue_details
from ...program.volume import Volume
from ...stacks.left_out import LeftOutStack
from ..judge.left_out import cut_to_data, make_stack, read_thickness

#: Frequencies in cycles/mm.
RINGS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5), (0.5, 0.8))
_WEAVE = (0.25, 0.5)  # cycles/mm
_FEWEST = 500  # pixels of a slice
_DIRECTIONS = {"first axis": (0, 20), "between": (30, 60), "second axis": (70, 90)}  # degrees


def find_frequencies(shape: tuple[int, ...], spacing: np.ndarray, low: float, high: float) -> Iterator[np.ndarray]:
    """Masks of the frequencies of an image in a ring, in the three directions."""
    x, y = np.meshgrid(*(np.abs(np.fft.fftfreq(n, mm)) for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(y, x))
    for first, last in _DIRECTIONS.values():
        yield (radius >= low) & (radius < high) & (angle >= first) & (angle <= last)


def transform(image: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Spectrum of an image, less its mean, in a Hann window."""
    there = np.ones(image.shape, dtype=bool) if there is None else there
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1]) * there
    return np.fft.fft2((image - image[there].mean()) * window) / np.sqrt(np.square(window).sum())


def measure_coherence(
    stack: np.ndarray, shown: np.ndarray, there: np.ndarray, spacing: np.ndarray, ring: tuple[float, float]
) -> list[tuple[float, float]]:
    """Coherence in the three directions of a stack and what it should show, and the ratio of their powers.

    It is the real part of the cross-spectrum over the root of both powers, as in Fourier ring correlation.

    Args:
        stack, shown, there: ``(X, Y, Z)``, slices along the last axis, and which voxels are compared.
        spacing: of the pixels in mm, two.
        ring: of frequencies, in cycles/mm. NaN where there are none.
    """
    sums = np.zeros((3, 3))
    for k in range(stack.shape[2]):
        if there[..., k].sum() < _FEWEST:
            continue
        corners = np.argwhere(there[..., k])
        box = tuple(map(slice, corners.min(0), corners.max(0) + 1))
        first, second = (transform(v[..., k][box], there[..., k][box]) for v in (stack, shown))
        for total, mask in zip(sums, find_frequencies(first.shape, spacing, *ring), strict=True):
            a, b = first[mask], second[mask]
            total += [np.vdot(a, b).real, np.vdot(a, a).real, np.vdot(b, b).real]
    with np.errstate(invalid="ignore"):
        return [(float(s[0] / np.sqrt(s[1] * s[2])), float(s[2] / s[1])) for s in sums]


def measure_powers(volume: np.ndarray, spacing: np.ndarray, across: int, low: float, high: float) -> list[float]:
    """Mean power of the middle third of the slices in the three directions."""
    slices = np.moveaxis(volume, across, 2)
    plane = np.delete(spacing, across)
    middle = range(slices.shape[2] // 3, 2 * slices.shape[2] // 3)
    power = np.mean([np.square(np.abs(transform(slices[..., k]))) for k in middle], axis=0)
    return [float(power[mask].mean()) for mask in find_frequencies(power.shape, plane, low, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack")
    parser.add_argument("volumes", nargs="+")
    options = parser.parse_args()
    cut = cut_to_data(Volume.read(options.stack, "the stack"))
    stack = LeftOutStack(make_stack(cut, read_thickness(cut)))
    volumes = [Volume.read(file, "the volume") for file in options.volumes]
    shown = [make_stack(cut_to_data(volume)) for volume in volumes]
    predictions, common = stack.compare(stack.see_alike(shown, [stack.see(shown[0])] * len(shown)))
    for volume, prediction in zip(volumes, predictions, strict=True):
        print(f"{volume.name}: correlation {prediction.correlation:.4f}; coherence (power over the stack's)")
        for ring in RINGS:
            found = measure_coherence(cut.voxels, prediction.voxels.numpy(), common.numpy(), cut.spacing[:2], ring)
            said = [f"{name} {each:.2f} ({power:.2f})" for name, (each, power) in zip(_DIRECTIONS, found, strict=True)]
            print(f"  {ring[0]} to {ring[1]} cycles/mm: {', '.join(said)}")
        for across in range(3):
            first, between, second = measure_powers(volume.voxels, volume.spacing, across, *_WEAVE)
            print(
                f"  plane without axis {across}: along axes {(first + second) / 2 / between:.2f} of the power between"
            )
    details, tissue = compute_tissue_details(cut.voxels.astype(np.float64), (0, 1))
    noise = (float(np.median(np.abs(details[tissue]))) * SIGMA_PER_MAD) ** 2
    for low, high in RINGS:
        powers = measure_powers(cut.voxels, cut.spacing, 2, low, high)
        print(f"noise, {low} to {high} cycles/mm: {', '.join(f'{noise / power:.1%}' for power in powers)}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
